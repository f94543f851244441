"""Every address of the product; each app brings its own."""

from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import LogoutView, PasswordChangeDoneView, PasswordChangeView
from django.urls import URLPattern, URLResolver, include, path, reverse_lazy
from django.views.i18n import set_language

from config import accounts, http
from scheduling.admin import site

urlpatterns: list[URLPattern | URLResolver] = [
    path("accounts/login/", accounts.SignInView.as_view(), name="login"),
    path("accounts/logout/", LogoutView.as_view(), name="logout"),
    path(
        "accounts/password/",
        PasswordChangeView.as_view(
            template_name="registration/password_change.html", success_url=reverse_lazy("password-changed")
        ),
        name="password-change",
    ),
    path(
        "accounts/password/changed/",
        PasswordChangeDoneView.as_view(template_name="registration/password_changed.html"),
        name="password-changed",
    ),
    path("language/", login_not_required(set_language), name="set_language"),
    path("admin/", site.urls),
    path("", include("scheduling.urls")),
    path("", include("workflows.urls")),
    path("", include("reruns.urls")),
]

handler403 = http.forbidden
handler404 = http.not_found
