"""The WSGI application that the web server loads, and when it looks for garbage: between requests."""

import gc
import itertools
import logging
import os

from django.core.signals import request_finished
from django.core.wsgi import get_wsgi_application

from config import database

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
application = get_wsgi_application()
# Refuse a database that can never do. One that does not answer yet may answer later, and /healthz says so.
try:
    database.check_server(database.given_url())
except database.UnsuitableDatabase:
    raise
except database.DatabaseUnavailable as error:
    logging.getLogger("scheduling").warning("The web starts without its database: %s", error)
# What is loaded by now stays. To look through it for garbage would hold up a request for a tenth of a second,
# once in a hundred.
gc.collect()
gc.freeze()
# A page leaves some thousand objects that hold each other. To look for them while a page is made holds that up:
# by an eighth if it is done often, by a whole page's time if it is not. Only what makes very many meets it.
gc.set_threshold(50_000)

_ended = itertools.count(1)


def collect_garbage(**_signal: object) -> None:
    """Free what the request left, when its answer has been sent: half a millisecond.

    What another request held meanwhile grows old by that, and is looked at more rarely, as by Python itself.
    """
    ended = next(_ended)
    gc.collect(2 if ended % 100 == 0 else 1 if ended % 10 == 0 else 0)


request_finished.connect(collect_garbage)
