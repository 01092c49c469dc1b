"""The options of connections, from settings."""

import ssl

from queueing.redis.addresses import parse_server
from queueing.redis.link import RedisOptions
from queueing.redis.settings import RedisSettings


def redis_options(
    redis: RedisSettings, name: str, scripts: tuple[str, ...], urls: tuple[str, ...] = ()
) -> RedisOptions:
    """Return the options of a connection; ``urls`` replace those of the settings."""
    return RedisOptions(
        servers=tuple(parse_server(url) for url in urls or redis.urls),
        sentinel_master=redis.sentinel_master,
        user=redis.user,
        password=redis.password.get_secret_value() if redis.password else "",
        sentinel_password=(
            redis.sentinel_password.get_secret_value() if redis.sentinel_password else ""
        ),
        tls=ssl.create_default_context(cafile=redis.ca_file) if redis.ca_file else None,
        name=name,
        scripts=scripts,
    )
