"""The vault's second socket: for its operator's page, which may decide; no link ever sees it."""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import grpc

from client.operator_api.messages import QUESTIONS, SERVICE, Question, read, write
from client.operator_service.jobs import Jobs, in_words
from client.operator_service.questions import Answer, Questions
from client.settings import folders, load_node
from client.vault.service.grpc_service import serving_on
from shared.errors import FedVaultError

log = logging.getLogger(__name__)
TRIAL_FRESH_S = 3600.0


@contextmanager
def serving_operator(config: Path) -> Iterator[Path]:
    """Serve the operator's socket of a node.

    Guarantee: only the vault's own user can reach the operator's socket, whatever group the link's socket has.

    Args:
        config: the node's settings.
    """
    socket = folders(config, load_node(config)).operator_socket
    jobs, trials = Jobs(), Jobs(fresh_s=TRIAL_FRESH_S)
    with (
        closing(jobs),
        closing(trials),
        serving_on(socket, lambda server: _add(server, Questions(config, jobs, trials))),
    ):
        log.info("The operator's socket is %s.", socket)
        yield socket


def _add(server: grpc.Server, questions: Questions) -> None:
    methods: dict[str, grpc.RpcMethodHandler[Answer, Answer]] = {
        name: grpc.unary_unary_rpc_method_handler(
            _answering(questions, name), request_deserializer=read, response_serializer=write
        )
        for name in QUESTIONS
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))


def _answering(questions: Questions, name: Question) -> Callable[[Answer, grpc.ServicerContext], Answer]:
    def answer(arguments: Answer, context: grpc.ServicerContext) -> Answer:
        del context
        try:
            return questions.answer(name, arguments)
        except FedVaultError as error:
            return in_words(error)
        except Exception as error:  # the page is a process of its own, and shows what it is answered
            log.exception("A question of the operator's page could not be answered: %s", name)
            return in_words(error)

    return answer
