"""Every address of the product; each app brings its own."""

from django.contrib.auth.views import LogoutView, PasswordChangeDoneView, PasswordChangeView
from django.urls import URLPattern, URLResolver, include, path, reverse_lazy
from django.views.generic import RedirectView

from config import accounts, http
from scheduling.admin import site

urlpatterns: list[URLPattern | URLResolver] = [
    path("", RedirectView.as_view(pattern_name="batch-list"), name="home"),
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
    path("healthz", http.healthz, name="healthz"),
    path("admin/", site.urls),
    path("", include("scheduling.urls")),
]

handler403 = http.forbidden
handler404 = http.not_found
