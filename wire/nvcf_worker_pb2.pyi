from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WorkerConnect(_message.Message):
    __slots__ = ("instanceId", "functionId", "functionVersionId")
    INSTANCEID_FIELD_NUMBER: _ClassVar[int]
    FUNCTIONID_FIELD_NUMBER: _ClassVar[int]
    FUNCTIONVERSIONID_FIELD_NUMBER: _ClassVar[int]
    instanceId: str
    functionId: str
    functionVersionId: str
    def __init__(self, instanceId: _Optional[str] = ..., functionId: _Optional[str] = ..., functionVersionId: _Optional[str] = ...) -> None: ...

class WorkerConnectOnceResponse(_message.Message):
    __slots__ = ("connectedRegion", "otherRegions", "nvcfWorkerToken", "expiration")
    CONNECTEDREGION_FIELD_NUMBER: _ClassVar[int]
    OTHERREGIONS_FIELD_NUMBER: _ClassVar[int]
    NVCFWORKERTOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPIRATION_FIELD_NUMBER: _ClassVar[int]
    connectedRegion: str
    otherRegions: _containers.RepeatedScalarFieldContainer[str]
    nvcfWorkerToken: str
    expiration: _timestamp_pb2.Timestamp
    def __init__(self, connectedRegion: _Optional[str] = ..., otherRegions: _Optional[_Iterable[str]] = ..., nvcfWorkerToken: _Optional[str] = ..., expiration: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ProvisionWorkerRequest(_message.Message):
    __slots__ = ("instanceId", "functionId", "functionVersionId", "regionToProvision")
    INSTANCEID_FIELD_NUMBER: _ClassVar[int]
    FUNCTIONID_FIELD_NUMBER: _ClassVar[int]
    FUNCTIONVERSIONID_FIELD_NUMBER: _ClassVar[int]
    REGIONTOPROVISION_FIELD_NUMBER: _ClassVar[int]
    instanceId: str
    functionId: str
    functionVersionId: str
    regionToProvision: str
    def __init__(self, instanceId: _Optional[str] = ..., functionId: _Optional[str] = ..., functionVersionId: _Optional[str] = ..., regionToProvision: _Optional[str] = ...) -> None: ...

class ProvisionWorkerResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FunctionMetadataCredentialsRequest(_message.Message):
    __slots__ = ("ncaId", "functionId", "functionVersionId")
    NCAID_FIELD_NUMBER: _ClassVar[int]
    FUNCTIONID_FIELD_NUMBER: _ClassVar[int]
    FUNCTIONVERSIONID_FIELD_NUMBER: _ClassVar[int]
    ncaId: str
    functionId: str
    functionVersionId: str
    def __init__(self, ncaId: _Optional[str] = ..., functionId: _Optional[str] = ..., functionVersionId: _Optional[str] = ...) -> None: ...

class SecretCredentialsRequest(_message.Message):
    __slots__ = ("functionId", "functionVersionId")
    FUNCTIONID_FIELD_NUMBER: _ClassVar[int]
    FUNCTIONVERSIONID_FIELD_NUMBER: _ClassVar[int]
    functionId: str
    functionVersionId: str
    def __init__(self, functionId: _Optional[str] = ..., functionVersionId: _Optional[str] = ...) -> None: ...

class CredentialsResponse(_message.Message):
    __slots__ = ("token", "expiration")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPIRATION_FIELD_NUMBER: _ClassVar[int]
    token: str
    expiration: _timestamp_pb2.Timestamp
    def __init__(self, token: _Optional[str] = ..., expiration: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class LargeResponseDownloadCredentialsRequest(_message.Message):
    __slots__ = ("functionId", "functionVersionId", "requestId", "ncaId")
    FUNCTIONID_FIELD_NUMBER: _ClassVar[int]
    FUNCTIONVERSIONID_FIELD_NUMBER: _ClassVar[int]
    REQUESTID_FIELD_NUMBER: _ClassVar[int]
    NCAID_FIELD_NUMBER: _ClassVar[int]
    functionId: str
    functionVersionId: str
    requestId: str
    ncaId: str
    def __init__(self, functionId: _Optional[str] = ..., functionVersionId: _Optional[str] = ..., requestId: _Optional[str] = ..., ncaId: _Optional[str] = ...) -> None: ...

class LargeResponseDownloadCredentialsResponse(_message.Message):
    __slots__ = ("url",)
    URL_FIELD_NUMBER: _ClassVar[int]
    url: str
    def __init__(self, url: _Optional[str] = ...) -> None: ...

class RefreshLargeUploadCredentialsRequest(_message.Message):
    __slots__ = ("requestId", "functionId", "functionVersionId")
    REQUESTID_FIELD_NUMBER: _ClassVar[int]
    FUNCTIONID_FIELD_NUMBER: _ClassVar[int]
    FUNCTIONVERSIONID_FIELD_NUMBER: _ClassVar[int]
    requestId: str
    functionId: str
    functionVersionId: str
    def __init__(self, requestId: _Optional[str] = ..., functionId: _Optional[str] = ..., functionVersionId: _Optional[str] = ...) -> None: ...

class RefreshLargeUploadCredentialsResponse(_message.Message):
    __slots__ = ("largeResponseUrl",)
    LARGERESPONSEURL_FIELD_NUMBER: _ClassVar[int]
    largeResponseUrl: str
    def __init__(self, largeResponseUrl: _Optional[str] = ...) -> None: ...

class RefreshAssetDownloadCredentialsRequest(_message.Message):
    __slots__ = ("requestId", "functionId", "functionVersionId", "assetId")
    REQUESTID_FIELD_NUMBER: _ClassVar[int]
    FUNCTIONID_FIELD_NUMBER: _ClassVar[int]
    FUNCTIONVERSIONID_FIELD_NUMBER: _ClassVar[int]
    ASSETID_FIELD_NUMBER: _ClassVar[int]
    requestId: str
    functionId: str
    functionVersionId: str
    assetId: str
    def __init__(self, requestId: _Optional[str] = ..., functionId: _Optional[str] = ..., functionVersionId: _Optional[str] = ..., assetId: _Optional[str] = ...) -> None: ...

class AssetReference(_message.Message):
    __slots__ = ("assetId", "reference", "contentType")
    ASSETID_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    CONTENTTYPE_FIELD_NUMBER: _ClassVar[int]
    assetId: str
    reference: str
    contentType: str
    def __init__(self, assetId: _Optional[str] = ..., reference: _Optional[str] = ..., contentType: _Optional[str] = ...) -> None: ...

class RefreshAssetDownloadCredentialsResponse(_message.Message):
    __slots__ = ("inputAssetReference",)
    INPUTASSETREFERENCE_FIELD_NUMBER: _ClassVar[int]
    inputAssetReference: AssetReference
    def __init__(self, inputAssetReference: _Optional[_Union[AssetReference, _Mapping]] = ...) -> None: ...
