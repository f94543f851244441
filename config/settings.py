"""Django settings. Everything that differs between machines comes from the environment.

| variable | meaning | default |
| --- | --- | --- |
| DATABASE_URL | a PostgreSQL of one's own, 15 or newer | the embedded server in var/ |
| TAILRACE_SECRET_KEY | Django's secret key | a file in var/, made at first use |
| TAILRACE_HOSTS | comma-separated host names that the web answers to | 127.0.0.1, localhost |
| TAILRACE_DEBUG | 1 shows tracebacks in the browser | off |
| TAILRACE_TIME_ZONE | the installation's zone | UTC |
| TAILRACE_VAR | where files are kept | var/ |
| TAILRACE_SQL_<NAME> | URL of the SQL connection <name> that sql tasks may use | – |
| TAILRACE_SECRET_<NAME> | a secret that shell and http tasks may ask for by name | – |
| TAILRACE_CHANNEL_<NAME> | address of the channel <name> that is told of events, as Apprise writes it | – |
| TAILRACE_URL | this installation's own address, for the links in notifications | – (paths only) |
| TAILRACE_NOTIFY_HOURS | hours for which a notification is tried before it is given up | 6 |
| TAILRACE_HTTPS | 1 behind a TLS proxy that sets X-Forwarded-Proto: cookies travel over https only | off |
| TAILRACE_PROXIES | how many proxies of yours add to X-Forwarded-For | 0 |
| TAILRACE_SESSION_IDLE | seconds without use after which a session ends | 7200 |
| TAILRACE_SESSION_AGE | seconds after which a session ends in any case | 43200 |
| TAILRACE_SIGN_IN_FAILURES | failures of one user from one address before sign-in is refused | 5 |
| TAILRACE_SIGN_IN_COOL_OFF | seconds for which it is then refused | 900 |
| TAILRACE_NODE_TIMEOUT | seconds of silence after which a node is offline | 15 |
| TAILRACE_CLAIM_SECONDS | seconds after which what a node claimed and did not start may be claimed anew | 5 |
| TAILRACE_STOP_GRACE | seconds that a job has to end by itself before its processes are killed | 5 |
| TAILRACE_MISFIRE_GRACE | seconds after which what is due and has not begun is late, and a misfire | 60 |
| TAILRACE_JOB_MODULES | comma-separated modules of one's own with Python jobs | – |
| TAILRACE_KINDS | comma-separated paths of job kinds of one's own | – |
| TAILRACE_LOG_LEVEL | from which level on the log tells of what we do | INFO |
| TAILRACE_RETENTION_DAYS | days that records of finished batches are kept; a task may say otherwise | 7 |
"""

import os
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext_lazy as _

from config import database

MOST_DAYS = 3650
BASE_DIR = Path(__file__).resolve().parent.parent
VAR = Path(os.environ.get("TAILRACE_VAR") or BASE_DIR / "var").absolute()


def _secret_key() -> str:
    if given := os.environ.get("TAILRACE_SECRET_KEY"):
        return given
    kept = VAR / "secret_key"
    try:
        return _kept_secret_key(kept)
    except OSError as error:
        raise ImproperlyConfigured(
            f"the secret key in {kept} cannot be read or made: {error}. Make {VAR} writable for you, set "
            "TAILRACE_VAR to a directory that is, or give the key in TAILRACE_SECRET_KEY."
        ) from error


def _kept_secret_key(kept: Path) -> str:
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        made = kept.with_suffix(f".{os.getpid()}")
        made.touch(mode=0o600)
        with made.open("w") as file:
            file.write(secrets.token_urlsafe(48))
            file.flush()
            os.fsync(file.fileno())
        # A link is atomic and refuses to replace: of two first starts at once, one key wins.
        try:
            os.link(made, kept)
        except FileExistsError:
            pass
        finally:
            made.unlink()
    key = kept.read_text().strip()
    if not key:
        raise ImproperlyConfigured(
            f"the secret key in {kept} is empty. Remove the file to have a new one made, which signs everybody "
            "out, or give the key in TAILRACE_SECRET_KEY."
        )
    return key


def _whole_days(name: str, default: str) -> int:
    given = os.environ.get(name) or default
    if not (given.isascii() and given.isdigit() and 1 <= int(given[:9]) <= MOST_DAYS):
        raise ImproperlyConfigured(f"{name} is {given!r}; give whole days from 1 to {MOST_DAYS}.")
    return int(given)


def _own_url() -> str:
    given = os.environ.get("TAILRACE_URL", "").rstrip("/")
    if given and not given.startswith(("https://", "http://")):
        raise ImproperlyConfigured(
            f"TAILRACE_URL is {given!r}; give the whole address, such as https://tailrace.example.org."
        )
    return given


def _hours(name: str, default: str) -> float:
    given = os.environ.get(name) or default
    try:
        hours = float(given)
    except ValueError:
        hours = 0.0
    if not 0 < hours <= 24 * 30:
        raise ImproperlyConfigured(f"{name} is {given!r}; give hours, more than 0 and up to 720.")
    return hours


SECRET_KEY = _secret_key()
DEBUG = os.environ.get("TAILRACE_DEBUG") == "1"
ALLOWED_HOSTS = os.environ.get("TAILRACE_HOSTS", "127.0.0.1,localhost").split(",")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django_filters",
    "django_htmx",
    "django_q",
    "axes",
    "pgtrigger",
    "scheduling",
    "workflows",
    "reruns",
]

MIDDLEWARE = [
    "scheduling.health.HealthMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "config.http.NeverStored",
    "django.middleware.csp.ContentSecurityPolicyMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "config.viewer.TimeZoneMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "config.accounts.SessionLimits",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "config.http.RefusalMiddleware",
    "scheduling.middleware.ActingViaWeb",
    "scheduling.middleware.NeedsTeam",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "config.viewer.theme",
            ],
        },
    },
]

FORM_RENDERER = "config.forms.PlainRenderer"

DATABASES = {
    "default": {
        **database.settings_from_url(database.given_url()),
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": True,
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "config.accounts.AccountBackend",
    "scheduling.permissions.TeamBackend",
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "login"

LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English")), ("zh-hans", _("Simplified Chinese"))]
LANGUAGE_COOKIE_AGE = 365 * 24 * 3600
LANGUAGE_COOKIE_HTTPONLY = True
LANGUAGE_COOKIE_SAMESITE = "Lax"
LOCALE_PATHS = [BASE_DIR / "config" / "locale"]
TIME_ZONE = os.environ.get("TAILRACE_TIME_ZONE", "UTC")
USE_I18N = True
USE_TZ = True
FORMAT_MODULE_PATH = ["config.formats"]

STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "config" / "static"]
# Served from the checkout without a collecting step; whitenoise sets the headers.
WHITENOISE_USE_FINDERS = True

SECURE_CSP = {
    "default-src": ["'self'"],
    "frame-ancestors": ["'none'"],
    "base-uri": ["'none'"],
    "form-action": ["'self'"],
    "object-src": ["'none'"],
}
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = int(os.environ.get("TAILRACE_SESSION_AGE", "43200"))
SESSION_IDLE_SECONDS = int(os.environ.get("TAILRACE_SESSION_IDLE", "7200"))
SESSION_SAVE_EVERY_REQUEST = False

HTTPS = os.environ.get("TAILRACE_HTTPS") == "1"
CSRF_FAILURE_VIEW = "config.http.not_sent"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
TRUSTED_PROXIES = int(os.environ.get("TAILRACE_PROXIES", "0"))

# Sign-in is throttled by django-axes, on every machine of an installation alike.
AXES_FAILURE_LIMIT = int(os.environ.get("TAILRACE_SIGN_IN_FAILURES", "5"))
AXES_COOLOFF_TIME = timedelta(seconds=int(os.environ.get("TAILRACE_SIGN_IN_COOL_OFF", "900")))
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_LOCKOUT_CALLABLE = "config.accounts.locked_out"
AXES_CLIENT_IP_CALLABLE = "config.accounts.client_address"
AXES_RESET_ON_SUCCESS = True
# Otherwise whoever keeps trying would never be let in, and the page could not say how long it takes.
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_DISABLE_ACCESS_LOG = True
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False

# django-q2 is the executor of a node; scheduling.engine.node gives it its workers and our broker.
# The engine sets every task's own time-out; the figures here only keep django-q2 from warning.
Q_CLUSTER = {
    "name": "tailrace",
    "broker_class": "scheduling.engine.broker.InstanceBroker",
    "timeout": 365 * 24 * 3600,
    "retry": 366 * 24 * 3600,
    "scheduler": False,
    "daemonize_workers": False,
    "recycle": 100_000,
    "save_limit": -1,
    "guard_cycle": 0.2,
    "log_level": "WARNING",
}

# The engine's own figures, in seconds unless named otherwise.
TAILRACE: dict[str, Any] = {
    "NODE_TIMEOUT": float(os.environ.get("TAILRACE_NODE_TIMEOUT", "15")),
    "CLAIM_SECONDS": float(os.environ.get("TAILRACE_CLAIM_SECONDS", "5")),
    "STOP_GRACE": float(os.environ.get("TAILRACE_STOP_GRACE", "5")),
    "MISFIRE_GRACE": float(os.environ.get("TAILRACE_MISFIRE_GRACE", "60")),
    "RETENTION_DAYS": _whole_days("TAILRACE_RETENTION_DAYS", "7"),
    "URL": _own_url(),
    "NOTIFY_HOURS": _hours("TAILRACE_NOTIFY_HOURS", "6"),
    "LOG_HEAD_BYTES": 1024 * 1024,
    "LOG_TAIL_BYTES": 256 * 1024,
    # Modules whose @job callables python tasks may name, beside every installed app's jobs.py.
    "JOB_MODULES": [
        "config.demo.jobs",
        "config.demo.weather",
        *(m for m in os.environ.get("TAILRACE_JOB_MODULES", "").split(",") if m),
    ],
    # Dotted paths of job kinds that an installation adds to the four of ours.
    "KINDS": [k for k in os.environ.get("TAILRACE_KINDS", "").split(",") if k],
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "line"},
        "nowhere": {"class": "logging.NullHandler"},
    },
    "loggers": {
        **{
            app: {"handlers": ["stderr"], "level": os.environ.get("TAILRACE_LOG_LEVEL", "INFO")}
            for app in ("scheduling", "workflows", "reruns")
        },
        # Django's own says nothing of a failed request unless DEBUG is on; a 4xx is no failure of ours.
        "django.request": {"handlers": ["stderr"], "level": "ERROR", "propagate": False},
        # What these say holds addresses of channels; notifications.channels tells of failures without them.
        "apprise": {"handlers": ["nowhere"], "propagate": False},
        "urllib3": {"handlers": ["nowhere"], "propagate": False},
        "axes": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        "django-q": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
    },
}
