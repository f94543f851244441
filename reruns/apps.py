from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class RerunsConfig(AppConfig):
    name = "reruns"
    verbose_name = _("Reruns downstream")

    def ready(self) -> None:
        from reruns import hooks

        hooks.connect()
