"""The program that runs jobs: a supervisor, a spawner and children."""
