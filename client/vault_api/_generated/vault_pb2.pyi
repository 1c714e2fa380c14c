from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TrainRequest(_message.Message):
    __slots__ = ("study_sha256", "study_run", "round", "adapter", "ledger_height", "ledger_head", "wire", "ledger_mac", "roster")
    STUDY_SHA256_FIELD_NUMBER: _ClassVar[int]
    STUDY_RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    LEDGER_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    LEDGER_HEAD_FIELD_NUMBER: _ClassVar[int]
    WIRE_FIELD_NUMBER: _ClassVar[int]
    LEDGER_MAC_FIELD_NUMBER: _ClassVar[int]
    ROSTER_FIELD_NUMBER: _ClassVar[int]
    study_sha256: str
    study_run: str
    round: int
    adapter: bytes
    ledger_height: int
    ledger_head: str
    wire: str
    ledger_mac: str
    roster: bytes
    def __init__(self, study_sha256: _Optional[str] = ..., study_run: _Optional[str] = ..., round: _Optional[int] = ..., adapter: _Optional[bytes] = ..., ledger_height: _Optional[int] = ..., ledger_head: _Optional[str] = ..., wire: _Optional[str] = ..., ledger_mac: _Optional[str] = ..., roster: _Optional[bytes] = ...) -> None: ...

class TrainEvent(_message.Message):
    __slots__ = ("steps_done", "reply")
    STEPS_DONE_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    steps_done: int
    reply: bytes
    def __init__(self, steps_done: _Optional[int] = ..., reply: _Optional[bytes] = ...) -> None: ...

class OfferRequest(_message.Message):
    __slots__ = ("study_run", "study_json", "peers", "node_name", "certificate_key")
    STUDY_RUN_FIELD_NUMBER: _ClassVar[int]
    STUDY_JSON_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_KEY_FIELD_NUMBER: _ClassVar[int]
    study_run: str
    study_json: str
    peers: _containers.RepeatedCompositeFieldContainer[Peer]
    node_name: str
    certificate_key: bytes
    def __init__(self, study_run: _Optional[str] = ..., study_json: _Optional[str] = ..., peers: _Optional[_Iterable[_Union[Peer, _Mapping]]] = ..., node_name: _Optional[str] = ..., certificate_key: _Optional[bytes] = ...) -> None: ...

class Peer(_message.Message):
    __slots__ = ("name", "key_sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEY_SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    key_sha256: str
    def __init__(self, name: _Optional[str] = ..., key_sha256: _Optional[str] = ...) -> None: ...

class OfferReply(_message.Message):
    __slots__ = ("status", "exchange_key", "signing_key", "declared_size")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_KEY_FIELD_NUMBER: _ClassVar[int]
    SIGNING_KEY_FIELD_NUMBER: _ClassVar[int]
    DECLARED_SIZE_FIELD_NUMBER: _ClassVar[int]
    status: int
    exchange_key: bytes
    signing_key: bytes
    declared_size: int
    def __init__(self, status: _Optional[int] = ..., exchange_key: _Optional[bytes] = ..., signing_key: _Optional[bytes] = ..., declared_size: _Optional[int] = ...) -> None: ...

class LegRequest(_message.Message):
    __slots__ = ("leg", "study_sha256", "study_run", "round", "content", "purpose")
    LEG_FIELD_NUMBER: _ClassVar[int]
    STUDY_SHA256_FIELD_NUMBER: _ClassVar[int]
    STUDY_RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    leg: str
    study_sha256: str
    study_run: str
    round: int
    content: bytes
    purpose: str
    def __init__(self, leg: _Optional[str] = ..., study_sha256: _Optional[str] = ..., study_run: _Optional[str] = ..., round: _Optional[int] = ..., content: _Optional[bytes] = ..., purpose: _Optional[str] = ...) -> None: ...

class LegReply(_message.Message):
    __slots__ = ("status", "content")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    status: int
    content: bytes
    def __init__(self, status: _Optional[int] = ..., content: _Optional[bytes] = ...) -> None: ...

class EvaluateRequest(_message.Message):
    __slots__ = ("study_sha256", "study_run", "number", "adapter", "ledger_height", "ledger_head", "ledger_mac", "roster")
    STUDY_SHA256_FIELD_NUMBER: _ClassVar[int]
    STUDY_RUN_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    LEDGER_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    LEDGER_HEAD_FIELD_NUMBER: _ClassVar[int]
    LEDGER_MAC_FIELD_NUMBER: _ClassVar[int]
    ROSTER_FIELD_NUMBER: _ClassVar[int]
    study_sha256: str
    study_run: str
    number: int
    adapter: bytes
    ledger_height: int
    ledger_head: str
    ledger_mac: str
    roster: bytes
    def __init__(self, study_sha256: _Optional[str] = ..., study_run: _Optional[str] = ..., number: _Optional[int] = ..., adapter: _Optional[bytes] = ..., ledger_height: _Optional[int] = ..., ledger_head: _Optional[str] = ..., ledger_mac: _Optional[str] = ..., roster: _Optional[bytes] = ...) -> None: ...

class EvaluateReply(_message.Message):
    __slots__ = ("reply",)
    REPLY_FIELD_NUMBER: _ClassVar[int]
    reply: bytes
    def __init__(self, reply: _Optional[bytes] = ...) -> None: ...

class ForgetRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ForgetReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("busy", "ledger_height", "ledger_head", "study_run", "round", "steps_done")
    BUSY_FIELD_NUMBER: _ClassVar[int]
    LEDGER_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    LEDGER_HEAD_FIELD_NUMBER: _ClassVar[int]
    STUDY_RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    STEPS_DONE_FIELD_NUMBER: _ClassVar[int]
    busy: bool
    ledger_height: int
    ledger_head: str
    study_run: str
    round: int
    steps_done: int
    def __init__(self, busy: _Optional[bool] = ..., ledger_height: _Optional[int] = ..., ledger_head: _Optional[str] = ..., study_run: _Optional[str] = ..., round: _Optional[int] = ..., steps_done: _Optional[int] = ...) -> None: ...
