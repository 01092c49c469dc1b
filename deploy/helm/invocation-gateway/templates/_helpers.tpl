{{/* Names. */}}
{{- define "gateway.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 46 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 46 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "gateway.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "gateway.labels" -}}
{{ include "gateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "gateway.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{- define "gateway.serviceAccount" -}}
{{- $own := ternary (include "gateway.fullname" .) "default" .Values.serviceAccount.create -}}
{{- default $own .Values.serviceAccount.name -}}
{{- end -}}

{{- define "gateway.secret" -}}
{{- default (printf "%s-secrets" (include "gateway.fullname" .)) .Values.secrets.existingSecret -}}
{{- end -}}

{{- define "gateway.natsSecret" -}}
{{- if or .Values.nats.existingSecret (not .Values.nats.enabled) -}}
{{- .Values.nats.existingSecret -}}
{{- else -}}
{{- printf "%s-nats-logins" (include "gateway.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- define "gateway.runsNats" -}}
{{- and (eq .Values.broker "nats") .Values.nats.enabled -}}
{{- end -}}

{{- define "gateway.natsUrls" -}}
{{- if .Values.nats.enabled -}}
{{- list (printf "nats://%s-nats.%s.svc:4222" (include "gateway.fullname" .) .Release.Namespace) | toJson -}}
{{- else -}}
{{- .Values.nats.urls | toJson -}}
{{- end -}}
{{- end -}}

{{/* The pods: a component, its roles, replicas and resources. */}}
{{- define "gateway.components" -}}
{{- $all := list "invocation" "api" "provision" -}}
{{- $pods := list (dict "name" "gateway" "suffix" "" "roles" (ternary (list "invocation") $all .Values.control.separate)
    "replicas" .Values.replicas "resources" .Values.resources "scales" .Values.autoscaling.enabled) -}}
{{- if .Values.control.separate -}}
{{- $pods = append $pods (dict "name" "control" "suffix" "-control" "roles" (list "api" "provision")
    "replicas" .Values.control.replicas "resources" .Values.control.resources "scales" false) -}}
{{- end -}}
{{- $pods | toJson -}}
{{- end -}}

{{/* Namespaces in which the gateway makes pods, with the token of its own service account. */}}
{{- define "gateway.podNamespaces" -}}
{{- $found := list -}}
{{- range .Values.clusters -}}
{{- if and (eq (default "" .backend) "kubernetes") (not (dig "kubernetes" "kubeconfig" "" .)) -}}
{{- $found = append $found (dig "kubernetes" "namespace" "" .) -}}
{{- end -}}
{{- end -}}
{{- $found | uniq | toJson -}}
{{- end -}}

{{/* The most pods that may run: more than one need a shared object store. */}}
{{- define "gateway.mostPods" -}}
{{- $own := ternary .Values.autoscaling.maxReplicas .Values.replicas .Values.autoscaling.enabled | int -}}
{{- add $own (ternary (int .Values.control.replicas) 0 .Values.control.separate) -}}
{{- end -}}

{{/* Settings of the chart, and the user's over them. */}}
{{- define "gateway.settings" -}}
{{- $name := include "gateway.fullname" . -}}
{{- $api := printf "http://%s.%s.svc:%v" $name .Release.Namespace .Values.service.port -}}
{{- if .Values.control.separate -}}
{{- $api = printf "http://%s-control.%s.svc:8080" $name .Release.Namespace -}}
{{- end -}}
{{- $edge := dict "trusted_hops" .Values.trustedHops -}}
{{- $objects := dict "backend" "local" "folder" "/var/lib/gateway/objects" -}}
{{- if .Values.domain -}}
{{- $_ := set $edge "host_suffix" (printf "invocation.%s" .Values.domain) -}}
{{- end -}}
{{- if eq .Values.objects.backend "s3" -}}
{{- $s3 := .Values.objects.s3 -}}
{{- $objects = dict "backend" "s3" "bucket" $s3.bucket "endpoint_url" $s3.endpointUrl "region" $s3.region -}}
{{- end -}}
{{- $own := dict
    "clusters" .Values.clusters
    "edge" $edge
    "objects" $objects
    "control" (dict "api_url" $api)
    "queue" (dict "backend" .Values.broker)
    "store" (dict "backend" .Values.broker)
    "drain" (dict "grace_s" .Values.drain.graceSeconds "timeout_s" .Values.drain.timeoutSeconds) -}}
{{- if eq .Values.broker "redis" -}}
{{- $redis := dict "urls" .Values.redis.urls "sentinel_master" .Values.redis.sentinelMaster "user" .Values.redis.user -}}
{{- if .Values.redis.caSecret -}}{{- $_ := set $redis "ca_file" "/etc/gateway/broker-ca/ca.crt" -}}{{- end -}}
{{- $_ := set $own "redis" $redis -}}
{{- else -}}
{{- $nats := dict "urls" (include "gateway.natsUrls" . | fromJsonArray) -}}
{{- if .Values.nats.caSecret -}}{{- $_ := set $nats "ca_file" "/etc/gateway/broker-ca/ca.crt" -}}{{- end -}}
{{- if .Values.nats.enabled -}}{{- $_ := set (get $own "store") "replicas" .Values.nats.replicas -}}{{- end -}}
{{- $_ := set $own "nats" $nats -}}
{{- end -}}
{{- mergeOverwrite $own (deepCopy .Values.settings) | toToml -}}
{{- end -}}

{{- define "gateway.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "gateway.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* What cannot work is refused before anything is installed. */}}
{{- define "gateway.check" -}}
{{- if and (eq .Values.objects.backend "emptyDir") (gt (include "gateway.mostPods" . | int) 1) -}}
{{- fail "objects.backend emptyDir is for one pod (replicas: 1): the others would not find its assets and stored responses. Use claim (ReadWriteMany) or s3" -}}
{{- end -}}
{{- if and (eq .Values.objects.backend "s3") (not .Values.objects.s3.bucket) -}}
{{- fail "objects.s3.bucket must be set, because objects.backend is s3" -}}
{{- end -}}
{{- if and (eq .Values.broker "redis") (not .Values.redis.urls) -}}
{{- fail "redis.urls must be set, because broker is redis" -}}
{{- end -}}
{{- if and (eq .Values.broker "nats") (not .Values.nats.enabled) (not .Values.nats.urls) -}}
{{- fail "nats.urls must be set, because nats.enabled is false" -}}
{{- end -}}
{{- if has "" (include "gateway.podNamespaces" . | fromJsonArray) -}}
{{- fail "clusters: kubernetes.namespace must be set where backend is kubernetes: instances run in it, and the gateway gets its rights there" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.domain) -}}
{{- fail "domain must be set, because ingress.enabled is true" -}}
{{- end -}}
{{- if and .Values.gatewayApi.enabled (not (and .Values.domain .Values.gatewayApi.parentRefs)) -}}
{{- fail "domain and gatewayApi.parentRefs must be set, because gatewayApi.enabled is true" -}}
{{- end -}}
{{- end -}}

{{/* The Secret with the certificate that verifies the broker, empty for none. */}}
{{- define "gateway.caSecret" -}}
{{- ternary .Values.redis.caSecret .Values.nats.caSecret (eq .Values.broker "redis") -}}
{{- end -}}
