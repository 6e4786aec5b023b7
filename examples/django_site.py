"""A Django site in one file: a page that is cached, a counter, and sessions, in threads (WSGI) and in async (ASGI).

CACHE_LOCATION=localhost:11211 python examples/django_site.py runserver
"""

from __future__ import annotations

import os
import sys
from http import HTTPStatus

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.cache import cache
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

if not settings.configured:
    settings.configure(
        SECRET_KEY=os.environ.get("SECRET_KEY", "only for this example"),
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        CACHES={
            "default": {
                "BACKEND": "metacache_django.MetaCache",
                "LOCATION": os.environ.get("CACHE_LOCATION", "localhost:11211"),
                "KEY_PREFIX": "example",
                "OPTIONS": {"on_error": "ignore", "timeout": 0.25},  # the site works on without its cache
            }
        },
        INSTALLED_APPS=["django.contrib.sessions"],
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
        # While the cache is down, Django tries 10,000 session keys and then raises: that takes seconds. A site that
        # must keep sessions uses cached_db and a database.
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
    )

PRODUCTS = {"tea": {"name": "Tea", "cents": 350}, "pot": {"name": "Pot", "cents": 1990}}


def count(name: str) -> int:
    """Count a view of *name* on the cache server; return the sum. Threads, processes and machines lose no count."""
    cache.add(f"views:{name}", 0, timeout=None)
    try:
        return cache.incr(f"views:{name}")
    except ValueError:  # the cache is down, or evicted the number
        return 0


def product(_: HttpRequest, name: str) -> JsonResponse:
    """Show a product from the cache, and how often it was shown."""
    if name not in PRODUCTS:
        return JsonResponse({"error": "there is no such product"}, status=HTTPStatus.NOT_FOUND)
    found = cache.get_or_set(f"product:{name}", lambda: PRODUCTS[name], timeout=300)
    return JsonResponse({"product": found, "views": count(name)})


def visit(request: HttpRequest) -> JsonResponse:
    """Count the visits of this session."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JsonResponse({"visits": request.session["visits"]})


async def products(_: HttpRequest) -> JsonResponse:
    """Show all products that are in the cache. An async view: no thread waits for memcached."""
    found = await cache.aget_many([f"product:{name}" for name in PRODUCTS])
    return JsonResponse({key.removeprefix("product:"): value for key, value in found.items()})


urlpatterns = [path("products/", products), path("products/<str:name>/", product), path("visit/", visit)]
wsgi = get_wsgi_application()  # gunicorn --chdir examples django_site:wsgi
asgi = get_asgi_application()  # uvicorn --app-dir examples django_site:asgi

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
