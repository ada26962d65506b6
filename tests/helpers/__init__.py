"""What several tests share: pytest has ``tests`` on its path (pyproject.toml), and scripts put it on theirs."""
