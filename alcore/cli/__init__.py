"""The command ``alcore``: one file a command, and no logic that Python users can't reach."""
