"""What is asked of the server, as values (`ops`, `admin`), and who sends it (`clients`)."""
