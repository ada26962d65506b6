"""What several tests share. pytest finds it by ``pythonpath`` in pyproject.toml; scripts append ``tests`` to sys.path."""
