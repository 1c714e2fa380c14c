"""The door of a page: which host, which origin, whose session, with which token, how often.

| what comes | what it gets |
|---|---|
| another Host than this page's (DNS rebinding) | 421 |
| another Origin, or a request that another site had the browser make | 403 |
| nobody whom the gateway knows, no session, or one that ended | 401, and how to come in |
| a write without this page's own Origin, the session's token, or as no form; by whom may only look | 403 |
| a write whose question no page of this session has asked, or that was answered before | 403 |
| more than a person does | 429 |
"""

import hashlib
import re
from collections.abc import Callable, Collection
from urllib.parse import parse_qsl

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.web.confirmations import CONFIRMATION_FIELD
from shared.web.local_user import user_of
from shared.web.rendering import Pages, Site
from shared.web.sessions import Caller, Entry, Rate, Session

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # with no-referrer a browser would send no Origin with a form
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
TOKEN_HEADER, TOKEN_FIELD = "x-fedvault-token", "token"
OURS = ("none", "same-origin")
"""Who had a browser ask, as it says: a person, or this page."""
ENTER, LEAVE, STATIC = "/enter", "/leave", "/static/"
MOST_BODY_BYTES, MOST_FIELDS = 64 * 1024, 100
FORM = "application/x-www-form-urlencoded"
UNASKED = (
    "Nothing was done: no question of this page waits for this answer. It was answered before, or was asked long ago. "
    "Load the page again; it shows what holds now."
)


def local_caller(scope: Scope) -> Caller:
    """Return who asks on this machine."""
    client: tuple[str, int] | None = scope.get("client")
    return Caller(user_of(client, scope.get("server")), client[0] if client else "this machine")


class Guard:
    """Lets in who has this page's session, and writes that come from this page.

    Guarantee: nothing of a page is shown, and nothing is done, for a request without its session's cookie.
    Guarantee: a session's cookie is worth nothing to another user of the machine, where the machine says who asks.
    Guarantee: nothing is done for a write without this page's own Host and Origin and its session's token.
    Guarantee: nothing is done for a write that does not answer a question which a page of this session asked.
    Guarantee: whoever guesses keys, however often, keeps nobody out who has the right one.
    Guarantee: whoever may only look changes nothing, whatever the page behind would do.

    What it hands on has in `request.state`: `session`, whose token forms bear and whose confirmations its questions
    are; `visitor`, in words for logs and rows; `who` a gateway has recognised, `until` when, and `may_act`; `form`, the
    fields of a write, which is read here and nowhere else; `goes_on`, false once the session has ended.

    Args:
        app: behind the door.
        pages: draws refusals.
        sessions: who may come in.
        hosts: names with port under which the page is reached; no other is answered.
        who: returns who asks; nobody is let in where it returns None.
        scheme: `https` where a gateway has TLS in front.
        entered: hears of each session that begins.
        strangers: rate of requests without a session.
        visitors: rate of requests with one.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        pages: Pages,
        sessions: Entry,
        hosts: Collection[str],
        who: Callable[[Scope], Caller | None] = local_caller,
        scheme: str = "http",
        entered: Callable[[Caller, Session], None] = lambda _caller, _session: None,
        strangers: Rate | None = None,
        visitors: Rate | None = None,
    ) -> None:
        self._app, self._pages, self._sessions, self._hosts = app, pages, sessions, frozenset(hosts)
        self._who, self._scheme, self._entered = who, scheme, entered
        self._tls, self._path = scheme == "https", f"{pages.site.root}/"
        self._strangers, self._visitors = strangers or Rate(2.0, 30), visitors or Rate(20.0, 120)
        # a browser takes a cookie of such a name over TLS alone
        self._cookie = f"{'__Secure-' if self._tls else ''}{cookie_name(pages.site)}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, refuse, or hand on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        send = _with_headers(send, cacheable=scope["path"].startswith(STATIC))
        caller, answer = self._who(scope), self._from_elsewhere(request)
        if answer is None and caller is None:
            answer = self._refusal(request, 401, self._sessions.where)
        if answer is None and scope["path"].startswith(STATIC):
            await self._app(scope, receive, send)
            return
        if answer is None and caller is not None and scope["path"] == ENTER and self._sessions.needs_key:
            answer = self._enter(request, caller)
        if answer is None and caller is not None:
            await self._within(request, caller, scope, receive, send)
        elif answer is not None:
            await answer(scope, receive, send)

    async def _within(self, request: Request, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        secret, user = request.cookies.get(self._cookie, ""), caller.user
        session = self._sessions.find(secret, user=user, by_itself=_by_itself(request))
        if session is None:
            begins = not self._sessions.needs_key and request.method == "GET" and not _by_itself(request)
            answer = self._enter(request, caller) if begins else self._stranger(request)
            await answer(scope, receive, send)
            return
        if not self._visitors.take():
            await self._refusal(request, 429, "Too many requests. Wait a moment.")(scope, receive, send)
            return
        scope["state"] = {
            **scope.get("state", {}),
            "session": session,
            "visitor": f"{caller.words}, session {session.label}",
            "who": caller.name,
            "until": caller.until,
            "may_act": caller.may_act,
            "goes_on": lambda: self._sessions.find(secret, user=user, by_itself=True) is session,
        }
        if request.method in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        body = await _body(request)
        form = _fields(body or b"")
        why = _unfit(request, body, form.pop(TOKEN_FIELD, ""), session)
        if why:
            await self._refusal(request, 403, why)(scope, receive, send)
        elif scope["path"] == LEAVE:
            await self._leave(request, session)(scope, receive, send)
        elif not caller.may_act:
            await self._refusal(request, 403, f"{caller.name} may look here, and change nothing.")(scope, receive, send)
        elif not session.confirmations.take(form.pop(CONFIRMATION_FIELD, ""), scope["path"], form):
            await self._refusal(request, 403, UNASKED)(scope, receive, send)
        else:
            scope["state"]["form"] = form
            await self._app(scope, receive, send)

    def _from_elsewhere(self, request: Request) -> Response | None:
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if host not in self._hosts:
            return Response("This page answers under its own address only.\n", 421, media_type="text/plain")
        site, mode = request.headers.get("sec-fetch-site", "none"), request.headers.get("sec-fetch-mode", "")
        # whoever follows a link comes from another site as well; one at another port has the cookie sent
        follows = mode == "navigate" and request.method == "GET" and request.scope["path"] in ("/", ENTER)
        if (site not in OURS and not follows) or (origin is not None and origin != f"{self._scheme}://{host}"):
            return Response("Another site's page asked for this.\n", 403, media_type="text/plain")
        return None

    def _enter(self, request: Request, caller: Caller) -> Response:
        early = request.headers.get("sec-purpose") or request.headers.get("purpose")
        if request.method != "GET" or early:  # a browser that looks ahead must not use the key up
            return Response(status_code=405 if not early else 503)
        session = self._sessions.enter(request.query_params.get("key", ""), caller.user)
        if session is None and not self._strangers.take():
            return self._refusal(request, 429, "Too many tries. Wait a moment.")
        if session is None and not self._sessions.needs_key:
            return self._refusal(request, 429, "Too many sessions were begun. Wait a moment.")
        if session is None:
            why = f"This address was used before, has expired, or is not this page's. {self._sessions.where}"
            return self._refusal(request, 403, why)
        self._entered(caller, session)
        # whoever needs no key asked for a page: the same comes again, now with the cookie
        asked = request.url.path.removeprefix("/") + (f"?{request.url.query}" if request.url.query else "")
        answer = RedirectResponse(self._path + ("" if self._sessions.needs_key else asked), 303)
        answer.set_cookie(
            self._cookie, session.secret, path=self._path, secure=self._tls, httponly=True, samesite="strict"
        )
        return answer

    def _leave(self, request: Request, session: Session) -> Response:
        self._sessions.end(session)
        answer = self._refusal(request, 200, f"You are logged out. {self._sessions.where}")
        answer.delete_cookie(self._cookie, path=self._path, secure=self._tls, httponly=True, samesite="strict")
        return answer

    def _stranger(self, request: Request) -> Response:
        if not self._strangers.take():
            return self._refusal(request, 429, "Too many requests. Wait a moment.")
        return self._refusal(request, 401, f"You are not logged in here, or were idle for long. {self._sessions.where}")

    def _refusal(self, request: Request, status: int, why: str) -> Response:
        # htmx puts no refusal into a page: it loads the whole one again, which then says why
        again = {"HX-Refresh": "true"} if request.headers.get("hx-request") and status == 401 else {}
        link = not self._sessions.needs_key
        return self._pages.response(request, "refused.html", status=status, headers=again, why=why, link=link)


def cookie_name(site: Site) -> str:
    """Return the name of a site's cookie: a browser sends the cookies of one port to all others of a host."""
    plain = re.sub(r"[^a-z0-9]+", "-", f"{site.role}-{site.instance}".lower()).strip("-")[:40]
    digest = hashlib.sha256(f"{site.role}/{site.instance}".encode()).hexdigest()
    return f"fedvault-{plain}-{digest[:8]}"


def _by_itself(request: Request) -> bool:
    """Return true for what is asked for without a person: events, parts that a page draws again, and by other sites."""
    polls = request.headers.get("hx-request") and request.method == "GET"
    elsewhere = request.headers.get("sec-fetch-site", "none") not in OURS
    return bool(polls) or elsewhere or "text/event-stream" in request.headers.get("accept", "")


def _unfit(request: Request, body: bytes | None, token: str, session: Session) -> str:
    """Return why a write is not done; empty if it is."""
    if request.headers.get("origin") is None:
        return "Expected a write that this page made: it came without an Origin."
    if body is None:
        return f"Expected a form of at most {MOST_BODY_BYTES} bytes."
    if request.headers.get("content-type", "").partition(";")[0].strip() != FORM:
        return "Expected a form."
    if not session.is_token(request.headers.get(TOKEN_HEADER, token)):
        return "The page is from an earlier session. Go back, load it again, and repeat what you did."
    return ""


def _fields(body: bytes) -> dict[str, str]:
    """Return the fields of a form; what is none has none."""
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS))
    except ValueError:
        return {}


async def _body(request: Request) -> bytes | None:
    """Return a request's body, or None if it is too large."""
    chunks, size = list[bytes](), 0
    async for chunk in request.stream():
        chunks.append(chunk)
        size += len(chunk)
        if size > MOST_BODY_BYTES:
            return None
    return b"".join(chunks)


def _with_headers(send: Send, *, cacheable: bool) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)  # a finished document, such as a report, brings a policy of its own
            headers["Cache-Control"] = "max-age=600" if cacheable else "no-store"
        await send(message)

    return sending
