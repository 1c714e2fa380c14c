"""Sites of `shared.web` behind a real port, in a thread of this process."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.routing import BaseRoute

from shared.web.connections import REQUEST_S
from shared.web.process import address, application, listening, server_of
from shared.web.rendering import Pages
from shared.web.sessions import Sessions
from tests.support.served import serving


@dataclass
class OpenSite:
    """A site that is served, and the keys that it announced."""

    port: int
    keys: list[str] = field(default_factory=list)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        """The one-time address that was announced last."""
        return address(self.port, self.keys[-1])


@contextmanager
def open_site(
    routes: Sequence[BaseRoute], pages: Pages, sessions: Sessions | None = None, *, request_s: float = REQUEST_S
) -> Iterator[OpenSite]:
    """Serve a site as its command does, until the block ends."""
    with listening() as opened:
        site = OpenSite(opened.getsockname()[1])
        known = sessions or Sessions(site.keys.append)
        app = application(routes, pages, known, port=site.port)
        with serving(server_of(app, request_s=request_s), [opened]):
            yield site
