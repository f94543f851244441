"""Every address of the product; each app brings its own."""

from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import URLPattern, URLResolver, include, path
from django.views.i18n import set_language

from config import http

urlpatterns: list[URLPattern | URLResolver] = [
    path("accounts/login/", LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("accounts/logout/", LogoutView.as_view(), name="logout"),
    path("language/", login_not_required(set_language), name="set_language"),
    path("healthz", http.healthz, name="healthz"),
    path("admin/", admin.site.urls),
    path("", include("scheduling.urls")),
]

handler403 = http.forbidden
handler404 = http.not_found
