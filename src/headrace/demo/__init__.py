"""The demo: the tutorial's system for real. A site with pages, a web app that enqueues, a worker that counts words."""
