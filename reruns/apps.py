from django.apps import AppConfig


class RerunsConfig(AppConfig):
    name = "reruns"
