{{/* Names and labels. */}}

{{- define "entra-redis.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "entra-redis.fullname" -}}
{{- $name := include "entra-redis.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 54 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 54 | trimSuffix "-" }}
{{- else }}
{{- /* 63 minus the longest suffix, "-metrics" or "-doctor", and one spare character. */ -}}
{{- printf "%s-%s" .Release.Name $name | trunc 54 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "entra-redis.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "entra-redis.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{/* Labels of all pods of a release, including the doctor's; the network policy selects by them. */}}
{{- define "entra-redis.releaseLabels" -}}
app.kubernetes.io/name: {{ include "entra-redis.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of the serving pods; the Deployment, the Services and all others select by them. */}}
{{- define "entra-redis.selectorLabels" -}}
{{ include "entra-redis.releaseLabels" . }}
app.kubernetes.io/component: server
{{- end }}

{{/* Labels of every object except pods. */}}
{{- define "entra-redis.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "entra-redis.releaseLabels" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | trimAll "-_." | quote }}
app.kubernetes.io/part-of: entra-redis
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The same merged with additional labels, which take precedence: a duplicate key would be invalid YAML. */}}
{{- define "entra-redis.labelsAnd" -}}
{{- toYaml (mergeOverwrite (include "entra-redis.labels" (index . 0) | fromYaml) (index . 1 | default dict)) }}
{{- end }}

{{/* Labels of pods, except app.kubernetes.io/component. Without the chart's version, which alone must not restart pods. */}}
{{- define "entra-redis.podLabels" -}}
{{ include "entra-redis.releaseLabels" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | trimAll "-_." | quote }}
app.kubernetes.io/part-of: entra-redis
{{- if include "entra-redis.workloadIdentity" . }}
azure.workload.identity/use: "true"
{{- end }}
{{- with mergeOverwrite (dict) (.Values.commonLabels | default dict) (.Values.podLabels | default dict) }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "entra-redis.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* The identity in use: "true" or empty. */}}

{{- define "entra-redis.workloadIdentity" -}}
{{- if and .Values.workloadIdentity.enabled (eq .Values.redis.auth "entra") }}true{{ end }}
{{- end }}

{{/* Workload identity without a webhook: the chart sets variables and token volume instead. */}}
{{- define "entra-redis.projectsToken" -}}
{{- if and (include "entra-redis.workloadIdentity" .) (not .Values.workloadIdentity.webhook) }}true{{ end }}
{{- end }}

{{- define "entra-redis.managedIdentity" -}}
{{- if and .Values.managedIdentity.enabled (eq .Values.redis.auth "entra") }}true{{ end }}
{{- end }}

{{/* The service account's annotations; pods are recreated when they change, because the webhook reads them only at creation. */}}
{{- define "entra-redis.serviceAccountAnnotations" -}}
{{- if include "entra-redis.workloadIdentity" . }}
azure.workload.identity/client-id: {{ .Values.workloadIdentity.clientId | quote }}
{{- with .Values.workloadIdentity.tenantId }}
azure.workload.identity/tenant-id: {{ . | quote }}
{{- end }}
azure.workload.identity/service-account-token-expiration: {{ .Values.workloadIdentity.tokenExpirationSeconds | int | quote }}
{{- end }}
{{- with .Values.serviceAccount.annotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A duration such as 500ms, 5s or 2m in milliseconds; empty if invalid or longer than one day, the service's limit. */}}
{{- define "entra-redis.milliseconds" -}}
{{- if regexMatch "^[0-9]{1,8}(ms|s|m)$" . }}
{{- $number := regexFind "^[0-9]+" . | int64 }}
{{- $unit := regexFind "[a-z]+$" . }}
{{- $milliseconds := mul $number (get (dict "ms" 1 "s" 1000 "m" 60000) $unit) }}
{{- if le $milliseconds 86400000 }}{{ $milliseconds }}{{ end }}
{{- end }}
{{- end }}

{{/*
The pod's grace period. The service needs DRAIN_DELAY + DRAIN_TIMEOUT, then 1 s for its tasks, 1 s for the pool and 2 s for
telemetry; 3 s more, so that the kubelet never kills a process that is about to exit.
*/}}
{{- define "entra-redis.gracePeriod" -}}
{{- $delay := include "entra-redis.milliseconds" .Values.drain.delay | default "0" | int64 }}
{{- $timeout := include "entra-redis.milliseconds" .Values.drain.timeout | default "0" | int64 }}
{{- $drain := div (add $delay $timeout 999) 1000 }}
{{- $tasks := 1 }}{{ $pool := 1 }}{{ $telemetry := 2 }}{{ $margin := 3 }}
{{- add $drain $tasks $pool $telemetry $margin }}
{{- end }}

{{/*
The endpoint as the service parses it, as JSON: host and port, or the fault; and whether it is Azure Managed Redis (managed) or
the older Azure Cache for Redis (cache). Default ports by suffix are those of the service's configuration; `tests/chart` compares.
*/}}
{{- define "entra-redis.endpoint" -}}
{{- $text := .Values.redis.endpoint }}
{{- $found := dict }}
{{- $ports := dict
  ".redis.azure.net" 10000
  ".redis.chinacloudapi.cn" 10000
  ".redis.usgovcloudapi.net" 10000
  ".redis.sovcloud-api.fr" 10000
  ".redis.sovcloud-api.de" 10000
  ".redis.sovcloud-api.sg" 10000
  ".redis.cache.windows.net" 6380
  ".redis.cache.chinacloudapi.cn" 6380
  ".redis.cache.usgovcloudapi.net" 6380 }}
{{- $shape := "^([^:\\[\\]]+|\\[[0-9A-Fa-f:.]+\\])(:.*)?$" }}
{{- $label := "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?" }}
{{- if not $text }}
{{- $_ := set $found "fault" "missing" }}
{{- else if contains "://" $text }}
{{- $_ := set $found "fault" "url" }}
{{- else if regexMatch "[,=@;]" $text }}
{{- $_ := set $found "fault" "connection string" }}
{{- else if not (regexMatch $shape $text) }}
{{- $_ := set $found "fault" "shape" }}
{{- else }}
{{- $host := regexReplaceAll $shape $text "${1}" | trimSuffix "." | lower }}
{{- $port := regexReplaceAll $shape $text "${2}" }}
{{- $_ := set $found "host" $host }}
{{- if not (or (hasPrefix "[" $host) (regexMatch (printf "^%s(\\.%s)*$" $label $label) $host)) }}
{{- $_ := set $found "fault" "shape" }}
{{- else if contains ".privatelink." $host }}
{{- $_ := set $found "fault" "privatelink" }}
{{- else if $port }}
{{- if and (regexMatch "^:[1-9][0-9]{0,4}$" $port) (le (trimPrefix ":" $port | int) 65535) }}
{{- $_ := set $found "port" (trimPrefix ":" $port | int) }}
{{- else }}
{{- $_ := set $found "fault" "port" }}
{{- end }}
{{- else }}
{{- range $suffix, $known := $ports }}
{{- if hasSuffix $suffix $host }}{{ $_ := set $found "port" $known }}{{ end }}
{{- end }}
{{- if not $found.port }}
{{- $_ := set $found "fault" "no port" }}
{{- end }}
{{- end }}
{{- /* Cluster nodes are reached under their own ports, 8500 to 8599. */ -}}
{{- range $suffix, $known := $ports }}
{{- if hasSuffix $suffix $host }}{{ $_ := set $found "azure" (ternary "managed" "cache" (eq $known 10000)) }}{{ end }}
{{- end }}
{{- if or (eq (toString $found.azure) "managed") (eq (int $found.port) 10000) }}{{ $_ := set $found "nodes" true }}{{ end }}
{{- end }}
{{- toJson $found }}
{{- end }}

{{/* The port of an http:// or https:// URL. */}}
{{- define "entra-redis.urlPort" -}}
{{- $authority := . | trimPrefix "https://" | trimPrefix "http://" | splitList "/" | first }}
{{- $port := regexFind ":[0-9]+$" $authority | trimPrefix ":" }}
{{- $port | default (ternary "443" "80" (hasPrefix "https://" .)) }}
{{- end }}

{{/*
The value that sets each variable; `extraEnv` must not set it as well. The variables of an identity belong to the chart while
that identity is in use. `tests/chart` compares the list with the output of `entra-redis config`.
*/}}
{{- define "entra-redis.variables" -}}
HOST: http.host
PORT: http.port
ADMIN_PORT: http.adminPort
REDIS_ENDPOINT: redis.endpoint
REDIS_CLUSTERING_POLICY: redis.clusteringPolicy
REDIS_AUTH: redis.auth
REDIS_TLS: redis.tls
REDIS_KEY: redis.existingSecret
REDIS_CA_FILE: redis.caConfigMap
SSL_CERT_FILE: entra.caConfigMap
REDIS_POOL_SIZE: redis.poolSize
REDIS_CONNECT_TIMEOUT: redis.connectTimeout
REDIS_COMMAND_TIMEOUT: redis.commandTimeout
REQUEST_TIMEOUT: http.requestTimeout
MAX_CONCURRENT_REQUESTS: http.maxConcurrentRequests
REDIS_SCOPE: entra.scope
REDIS_USERNAME: entra.username
SAMPLE_KEY: http.sampleKey
AZURE_AUTHORITY_HOST: entra.authorityHost
LOG_FORMAT: log.format
RUST_LOG: log.level
OTEL_SDK_DISABLED: otel.disabled
OTEL_TRACES_EXPORTER: otel.traces
OTEL_LOGS_EXPORTER: otel.logs
OTEL_METRICS_EXPORTER: otel.metrics
OTEL_EXPORTER_OTLP_ENDPOINT: otel.endpoint
OTEL_EXPORTER_OTLP_PROTOCOL: otel.protocol
OTEL_EXPORTER_OTLP_TIMEOUT: otel.timeout
OTEL_EXPORTER_OTLP_HEADERS: otel.headersSecret
OTEL_SERVICE_NAME: otel.serviceName
OTEL_RESOURCE_ATTRIBUTES: otel.resourceAttributes
OTEL_TRACES_SAMPLER: otel.sampler
OTEL_TRACES_SAMPLER_ARG: otel.samplerArg
DRAIN_DELAY: drain.delay
DRAIN_TIMEOUT: drain.timeout
{{- if include "entra-redis.workloadIdentity" . }}
AZURE_TOKEN_CREDENTIALS: workloadIdentity.enabled
AZURE_CLIENT_ID: workloadIdentity.clientId
AZURE_TENANT_ID: workloadIdentity.tenantId
AZURE_FEDERATED_TOKEN_FILE: workloadIdentity.webhook
{{- else if include "entra-redis.managedIdentity" . }}
AZURE_TOKEN_CREDENTIALS: managedIdentity.enabled
AZURE_CLIENT_ID: managedIdentity.clientId
{{- end }}
{{- end }}

{{/* The pods. */}}

{{/* One plain variable, omitted if the value is empty: set but empty means unset. */}}
{{- define "entra-redis.variable" -}}
{{- $value := index . 1 | toString }}
{{- if $value }}
- name: {{ index . 0 }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "entra-redis.env" -}}
{{- $file := "/etc/entra-redis" }}
{{- include "entra-redis.variable" (list "HOST" .Values.http.host) }}
{{- include "entra-redis.variable" (list "PORT" (int .Values.http.port)) }}
{{- include "entra-redis.variable" (list "ADMIN_PORT" (int .Values.http.adminPort)) }}
{{- include "entra-redis.variable" (list "REDIS_ENDPOINT" .Values.redis.endpoint) }}
{{- include "entra-redis.variable" (list "REDIS_CLUSTERING_POLICY" .Values.redis.clusteringPolicy) }}
{{- include "entra-redis.variable" (list "REDIS_AUTH" .Values.redis.auth) }}
{{- include "entra-redis.variable" (list "REDIS_TLS" .Values.redis.tls) }}
{{- if and (eq .Values.redis.auth "key") .Values.redis.existingSecret.name }}
- name: REDIS_KEY
  valueFrom:
    secretKeyRef:
      {{- toYaml (pick .Values.redis.existingSecret "name" "key") | nindent 6 }}
{{- end }}
{{- if .Values.redis.caConfigMap.name }}
- name: REDIS_CA_FILE
  value: {{ $file }}/redis-ca/{{ .Values.redis.caConfigMap.key }}
{{- end }}
{{- if .Values.entra.caConfigMap.name }}
- name: SSL_CERT_FILE
  value: {{ $file }}/entra-ca/{{ .Values.entra.caConfigMap.key }}
{{- end }}
{{- include "entra-redis.variable" (list "REDIS_POOL_SIZE" (int .Values.redis.poolSize)) }}
{{- include "entra-redis.variable" (list "REDIS_CONNECT_TIMEOUT" .Values.redis.connectTimeout) }}
{{- include "entra-redis.variable" (list "REDIS_COMMAND_TIMEOUT" .Values.redis.commandTimeout) }}
{{- include "entra-redis.variable" (list "REQUEST_TIMEOUT" .Values.http.requestTimeout) }}
{{- include "entra-redis.variable" (list "MAX_CONCURRENT_REQUESTS" (int .Values.http.maxConcurrentRequests)) }}
{{- include "entra-redis.variable" (list "REDIS_SCOPE" .Values.entra.scope) }}
{{- include "entra-redis.variable" (list "REDIS_USERNAME" .Values.entra.username) }}
{{- include "entra-redis.variable" (list "SAMPLE_KEY" .Values.http.sampleKey) }}
{{- if include "entra-redis.workloadIdentity" . }}
{{- /* By name, so that a pod that the webhook missed fails with the fix in its message instead of authenticating as its node. */ -}}
{{- include "entra-redis.variable" (list "AZURE_TOKEN_CREDENTIALS" "WorkloadIdentityCredential") }}
{{- else if include "entra-redis.managedIdentity" . }}
{{- include "entra-redis.variable" (list "AZURE_TOKEN_CREDENTIALS" "ManagedIdentityCredential") }}
{{- include "entra-redis.variable" (list "AZURE_CLIENT_ID" .Values.managedIdentity.clientId) }}
{{- end }}
{{- if include "entra-redis.projectsToken" . }}
{{- include "entra-redis.variable" (list "AZURE_CLIENT_ID" .Values.workloadIdentity.clientId) }}
{{- include "entra-redis.variable" (list "AZURE_TENANT_ID" .Values.workloadIdentity.tenantId) }}
{{- include "entra-redis.variable" (list "AZURE_FEDERATED_TOKEN_FILE" (printf "%s/identity/token" $file)) }}
{{- end }}
{{- include "entra-redis.variable" (list "AZURE_AUTHORITY_HOST" .Values.entra.authorityHost) }}
{{- include "entra-redis.variable" (list "LOG_FORMAT" .Values.log.format) }}
{{- include "entra-redis.variable" (list "RUST_LOG" .Values.log.level) }}
{{- include "entra-redis.variable" (list "OTEL_SDK_DISABLED" .Values.otel.disabled) }}
{{- /* otlp is the service's default; set explicitly without an endpoint, it would cause a warning. */}}
{{- if ne .Values.otel.traces "otlp" }}
{{- include "entra-redis.variable" (list "OTEL_TRACES_EXPORTER" .Values.otel.traces) }}
{{- end }}
{{- include "entra-redis.variable" (list "OTEL_LOGS_EXPORTER" .Values.otel.logs) }}
{{- include "entra-redis.variable" (list "OTEL_METRICS_EXPORTER" .Values.otel.metrics) }}
{{- include "entra-redis.variable" (list "OTEL_EXPORTER_OTLP_ENDPOINT" .Values.otel.endpoint) }}
{{- include "entra-redis.variable" (list "OTEL_EXPORTER_OTLP_PROTOCOL" .Values.otel.protocol) }}
{{- include "entra-redis.variable" (list "OTEL_EXPORTER_OTLP_TIMEOUT" (int .Values.otel.timeout)) }}
{{- if .Values.otel.headersSecret.name }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom:
    secretKeyRef:
      {{- toYaml (pick .Values.otel.headersSecret "name" "key") | nindent 6 }}
{{- end }}
{{- include "entra-redis.variable" (list "OTEL_SERVICE_NAME" .Values.otel.serviceName) }}
{{- /* Kubernetes expands $(…) from the variables before it. */}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- $attributes := list "k8s.namespace.name=$(POD_NAMESPACE)" "k8s.pod.name=$(POD_NAME)" }}
{{- with .Values.otel.resourceAttributes }}{{ $attributes = append $attributes . }}{{ end }}
{{- include "entra-redis.variable" (list "OTEL_RESOURCE_ATTRIBUTES" (join "," $attributes)) }}
{{- include "entra-redis.variable" (list "OTEL_TRACES_SAMPLER" .Values.otel.sampler) }}
{{- include "entra-redis.variable" (list "OTEL_TRACES_SAMPLER_ARG" .Values.otel.samplerArg) }}
{{- include "entra-redis.variable" (list "DRAIN_DELAY" .Values.drain.delay) }}
{{- include "entra-redis.variable" (list "DRAIN_TIMEOUT" .Values.drain.timeout) }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "entra-redis.volumeMounts" -}}
{{- if .Values.redis.caConfigMap.name }}
- name: redis-ca
  mountPath: /etc/entra-redis/redis-ca
  readOnly: true
{{- end }}
{{- if .Values.entra.caConfigMap.name }}
- name: entra-ca
  mountPath: /etc/entra-redis/entra-ca
  readOnly: true
{{- end }}
{{- if include "entra-redis.projectsToken" . }}
- name: identity
  mountPath: /etc/entra-redis/identity
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "entra-redis.volumes" -}}
{{- if .Values.redis.caConfigMap.name }}
- name: redis-ca
  configMap:
    name: {{ .Values.redis.caConfigMap.name }}
{{- end }}
{{- if .Values.entra.caConfigMap.name }}
- name: entra-ca
  configMap:
    name: {{ .Values.entra.caConfigMap.name }}
{{- end }}
{{- if include "entra-redis.projectsToken" . }}
- name: identity
  projected:
    sources:
      - serviceAccountToken:
          path: token
          audience: api://AzureADTokenExchange
          expirationSeconds: {{ .Values.workloadIdentity.tokenExpirationSeconds | int }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Pod settings shared by the serving pods and the doctor's, so that the doctor runs under the same conditions. */}}
{{- define "entra-redis.podSpec" -}}
serviceAccountName: {{ include "entra-redis.serviceAccountName" . }}
# The pods do not use the API server; the token for Entra ID comes from its own volume.
automountServiceAccountToken: false
# Kubernetes' variables for a Service named `redis` could be mistaken for the program's own.
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "entra-redis.volumes" . | trim }}
volumes:
  {{- . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "entra-redis.container" -}}
image: {{ include "entra-redis.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
env:
  {{- include "entra-redis.env" . | trim | nindent 2 }}
{{- with include "entra-redis.volumeMounts" . | trim }}
volumeMounts:
  {{- . | nindent 2 }}
{{- end }}
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
