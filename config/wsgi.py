"""The WSGI application that the web server loads."""

import gc
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
application = get_wsgi_application()
# What is loaded by now stays. To look through it for garbage would hold up a request for a tenth of a second,
# once in a hundred.
gc.collect()
gc.freeze()
# A page makes some ten thousand objects that go by themselves. To look for garbage after each two thousand
# was an eighth of what it cost.
gc.set_threshold(50_000)
