from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WorkerInvokeFunctionRequest(_message.Message):
    __slots__ = ("requestId", "ncaId", "subject", "largeResponseUrl", "maxDirectResponseSizeBytes", "inputAssetReference", "requestTime", "statefulConfig", "requestBody", "directResponseUrl", "requestHeaders", "requestMethod", "requestPath", "statelessConfig", "opaqueHeaderValues", "channelToken")
    class Header(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class InputAssetReference(_message.Message):
        __slots__ = ("assetId", "reference", "contentType")
        ASSETID_FIELD_NUMBER: _ClassVar[int]
        REFERENCE_FIELD_NUMBER: _ClassVar[int]
        CONTENTTYPE_FIELD_NUMBER: _ClassVar[int]
        assetId: str
        reference: str
        contentType: str
        def __init__(self, assetId: _Optional[str] = ..., reference: _Optional[str] = ..., contentType: _Optional[str] = ...) -> None: ...
    class OpaqueValue(_message.Message):
        __slots__ = ("index", "value")
        INDEX_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        index: int
        value: bytes
        def __init__(self, index: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...
    class StatefulConfig(_message.Message):
        __slots__ = ("nvcfRegionOfInvoker", "connectionConfigs")
        class ProxyConfig(_message.Message):
            __slots__ = ("proxyURI", "proxyAuthorizationToken")
            PROXYURI_FIELD_NUMBER: _ClassVar[int]
            PROXYAUTHORIZATIONTOKEN_FIELD_NUMBER: _ClassVar[int]
            proxyURI: str
            proxyAuthorizationToken: str
            def __init__(self, proxyURI: _Optional[str] = ..., proxyAuthorizationToken: _Optional[str] = ...) -> None: ...
        class ConnectionConfig(_message.Message):
            __slots__ = ("http1Config", "http3Config")
            HTTP1CONFIG_FIELD_NUMBER: _ClassVar[int]
            HTTP3CONFIG_FIELD_NUMBER: _ClassVar[int]
            http1Config: WorkerInvokeFunctionRequest.StatefulConfig.ProxyConfig
            http3Config: WorkerInvokeFunctionRequest.StatefulConfig.ProxyConfig
            def __init__(self, http1Config: _Optional[_Union[WorkerInvokeFunctionRequest.StatefulConfig.ProxyConfig, _Mapping]] = ..., http3Config: _Optional[_Union[WorkerInvokeFunctionRequest.StatefulConfig.ProxyConfig, _Mapping]] = ...) -> None: ...
        NVCFREGIONOFINVOKER_FIELD_NUMBER: _ClassVar[int]
        CONNECTIONCONFIGS_FIELD_NUMBER: _ClassVar[int]
        nvcfRegionOfInvoker: str
        connectionConfigs: _containers.RepeatedCompositeFieldContainer[WorkerInvokeFunctionRequest.StatefulConfig.ConnectionConfig]
        def __init__(self, nvcfRegionOfInvoker: _Optional[str] = ..., connectionConfigs: _Optional[_Iterable[_Union[WorkerInvokeFunctionRequest.StatefulConfig.ConnectionConfig, _Mapping]]] = ...) -> None: ...
    class StatelessConfig(_message.Message):
        __slots__ = ("connectionConfigs",)
        class Http1Config(_message.Message):
            __slots__ = ("proxyURI", "targetURI", "responseAuthorizationToken", "requestAuthorizationToken")
            PROXYURI_FIELD_NUMBER: _ClassVar[int]
            TARGETURI_FIELD_NUMBER: _ClassVar[int]
            RESPONSEAUTHORIZATIONTOKEN_FIELD_NUMBER: _ClassVar[int]
            REQUESTAUTHORIZATIONTOKEN_FIELD_NUMBER: _ClassVar[int]
            proxyURI: str
            targetURI: str
            responseAuthorizationToken: str
            requestAuthorizationToken: str
            def __init__(self, proxyURI: _Optional[str] = ..., targetURI: _Optional[str] = ..., responseAuthorizationToken: _Optional[str] = ..., requestAuthorizationToken: _Optional[str] = ...) -> None: ...
        class ConnectionConfig(_message.Message):
            __slots__ = ("http1Config",)
            HTTP1CONFIG_FIELD_NUMBER: _ClassVar[int]
            http1Config: WorkerInvokeFunctionRequest.StatelessConfig.Http1Config
            def __init__(self, http1Config: _Optional[_Union[WorkerInvokeFunctionRequest.StatelessConfig.Http1Config, _Mapping]] = ...) -> None: ...
        CONNECTIONCONFIGS_FIELD_NUMBER: _ClassVar[int]
        connectionConfigs: _containers.RepeatedCompositeFieldContainer[WorkerInvokeFunctionRequest.StatelessConfig.ConnectionConfig]
        def __init__(self, connectionConfigs: _Optional[_Iterable[_Union[WorkerInvokeFunctionRequest.StatelessConfig.ConnectionConfig, _Mapping]]] = ...) -> None: ...
    REQUESTID_FIELD_NUMBER: _ClassVar[int]
    NCAID_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    LARGERESPONSEURL_FIELD_NUMBER: _ClassVar[int]
    MAXDIRECTRESPONSESIZEBYTES_FIELD_NUMBER: _ClassVar[int]
    INPUTASSETREFERENCE_FIELD_NUMBER: _ClassVar[int]
    REQUESTTIME_FIELD_NUMBER: _ClassVar[int]
    STATEFULCONFIG_FIELD_NUMBER: _ClassVar[int]
    REQUESTBODY_FIELD_NUMBER: _ClassVar[int]
    DIRECTRESPONSEURL_FIELD_NUMBER: _ClassVar[int]
    REQUESTHEADERS_FIELD_NUMBER: _ClassVar[int]
    REQUESTMETHOD_FIELD_NUMBER: _ClassVar[int]
    REQUESTPATH_FIELD_NUMBER: _ClassVar[int]
    STATELESSCONFIG_FIELD_NUMBER: _ClassVar[int]
    OPAQUEHEADERVALUES_FIELD_NUMBER: _ClassVar[int]
    CHANNELTOKEN_FIELD_NUMBER: _ClassVar[int]
    requestId: str
    ncaId: str
    subject: str
    largeResponseUrl: str
    maxDirectResponseSizeBytes: int
    inputAssetReference: _containers.RepeatedCompositeFieldContainer[WorkerInvokeFunctionRequest.InputAssetReference]
    requestTime: _timestamp_pb2.Timestamp
    statefulConfig: WorkerInvokeFunctionRequest.StatefulConfig
    requestBody: bytes
    directResponseUrl: str
    requestHeaders: _containers.RepeatedCompositeFieldContainer[WorkerInvokeFunctionRequest.Header]
    requestMethod: str
    requestPath: str
    statelessConfig: WorkerInvokeFunctionRequest.StatelessConfig
    opaqueHeaderValues: _containers.RepeatedCompositeFieldContainer[WorkerInvokeFunctionRequest.OpaqueValue]
    channelToken: str
    def __init__(self, requestId: _Optional[str] = ..., ncaId: _Optional[str] = ..., subject: _Optional[str] = ..., largeResponseUrl: _Optional[str] = ..., maxDirectResponseSizeBytes: _Optional[int] = ..., inputAssetReference: _Optional[_Iterable[_Union[WorkerInvokeFunctionRequest.InputAssetReference, _Mapping]]] = ..., requestTime: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., statefulConfig: _Optional[_Union[WorkerInvokeFunctionRequest.StatefulConfig, _Mapping]] = ..., requestBody: _Optional[bytes] = ..., directResponseUrl: _Optional[str] = ..., requestHeaders: _Optional[_Iterable[_Union[WorkerInvokeFunctionRequest.Header, _Mapping]]] = ..., requestMethod: _Optional[str] = ..., requestPath: _Optional[str] = ..., statelessConfig: _Optional[_Union[WorkerInvokeFunctionRequest.StatelessConfig, _Mapping]] = ..., opaqueHeaderValues: _Optional[_Iterable[_Union[WorkerInvokeFunctionRequest.OpaqueValue, _Mapping]]] = ..., channelToken: _Optional[str] = ...) -> None: ...
