"""The web server's settings, for `make run` and every other installation alike.

    .venv/bin/gunicorn --config python:config.gunicorn config.wsgi

Options on the command line win over these.
"""

worker_class = "gthread"
threads = 8
# The control socket would lie in the home directory, shared by all installations of one account.
control_socket_disable = True
