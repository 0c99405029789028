{{/*
Every fault in the values, reported all at once, each with its fix. A line that begins with "* " is a fault; `tests/chart`
provokes each of them. Types and lists of choices are checked by the schema.
*/}}
{{- define "entra-redis.faults" -}}
{{- $guid := "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$" }}
{{- $placeholder := "00000000-0000-0000-0000-000000000000" }}
{{- $usesEntra := eq .Values.redis.auth "entra" }}

{{- /* The image. */}}
{{- $repository := .Values.image.repository }}
{{- if not $repository }}
* image.repository is not set. There is no public image: build one, push it to a registry that the cluster can pull from, and set it:
    docker build --tag REGISTRY/entra-redis:{{ .Chart.AppVersion }} . && docker push REGISTRY/entra-redis:{{ .Chart.AppVersion }}
    helm … --set image.repository=REGISTRY/entra-redis
  With Azure Container Registry: az acr build --registry NAME --image entra-redis:{{ .Chart.AppVersion }} .
{{- else if or (contains "://" $repository) (regexMatch "[\\s@]" $repository) (regexMatch ":[^/]*$" $repository) }}
* image.repository is {{ $repository | quote }}: give only registry and repository, such as NAME.azurecr.io/entra-redis, without a scheme; the tag goes into image.tag, the digest into image.digest
{{- end }}
{{- with .Values.image.digest }}
{{- if not (regexMatch "^sha256:[0-9a-f]{64}$" .) }}
* image.digest is {{ . | quote }}: give sha256: followed by 64 hexadecimal digits, as `docker push` prints it, or leave it empty
{{- end }}
{{- end }}

{{- /* The endpoint. */}}
{{- $endpoint := include "entra-redis.endpoint" . | fromJson }}
{{- $text := .Values.redis.endpoint | quote }}
{{- if eq (toString $endpoint.fault) "missing" }}
* redis.endpoint is not set: give the cache's host name, --set redis.endpoint=NAME.REGION.redis.azure.net
{{- else if eq (toString $endpoint.fault) "url" }}
* redis.endpoint is a URL: give host[:port] alone, without a scheme or anything after the port
{{- else if eq (toString $endpoint.fault) "connection string" }}
* redis.endpoint looks like a connection string: give host[:port] alone, without options, user or password; put an access key into a Secret and name it in redis.existingSecret
{{- else if eq (toString $endpoint.fault) "shape" }}
* redis.endpoint is {{ $text }}: give host[:port], such as NAME.REGION.redis.azure.net; put an IPv6 address in brackets
{{- else if eq (toString $endpoint.fault) "privatelink" }}
* redis.endpoint is {{ $text }}: the cache's certificate does not cover its privatelink name; give the name without `privatelink`, which resolves to the private endpoint as well
{{- else if eq (toString $endpoint.fault) "port" }}
* redis.endpoint is {{ $text }}: give a port from 1 to 65535 after the colon, or none for an Azure host name
{{- else if eq (toString $endpoint.fault) "no port" }}
* redis.endpoint is {{ $text }}: give host:port; only Azure host names have a default port
{{- end }}

{{- /* The credential. */}}
{{- if and $usesEntra .Values.workloadIdentity.enabled .Values.managedIdentity.enabled }}
* workloadIdentity.enabled and managedIdentity.enabled are both true: a pod can have only one identity; for the node's identity, --set workloadIdentity.enabled=false
{{- end }}
{{- if and $usesEntra (not .Values.workloadIdentity.enabled) (not .Values.managedIdentity.enabled) }}
{{- $named := false }}
{{- range .Values.extraEnv }}{{ if eq .name "AZURE_TOKEN_CREDENTIALS" }}{{ $named = true }}{{ end }}{{ end }}
{{- if not $named }}
* redis.auth is entra and no identity is configured: --set workloadIdentity.enabled=true (with workloadIdentity.clientId) or managedIdentity.enabled=true; for another credential, set AZURE_TOKEN_CREDENTIALS in extraEnv
{{- end }}
{{- end }}
{{- if include "entra-redis.workloadIdentity" . }}
{{- $clientId := .Values.workloadIdentity.clientId }}
{{- if and (not $clientId) (or .Values.serviceAccount.create (not .Values.workloadIdentity.webhook)) }}
* workloadIdentity.clientId is not set: the pods would have no identity. Give the client id of a managed identity or an app registration:
    az identity show --name IDENTITY --resource-group GROUP --query clientId --output tsv
{{- else if and $clientId (not (regexMatch $guid $clientId)) }}
* workloadIdentity.clientId is {{ $clientId | quote }}, which is not a GUID: give the client id, not the name or the resource id; az identity show --name IDENTITY --resource-group GROUP --query clientId --output tsv
{{- else if eq $clientId $placeholder }}
* workloadIdentity.clientId is all zeros, a placeholder: give the client id of your identity
{{- end }}
{{- with .Values.workloadIdentity.tenantId }}
{{- if not (regexMatch $guid .) }}
* workloadIdentity.tenantId is {{ . | quote }}, which is not a GUID: give the tenant's id, az account show --query tenantId --output tsv, or leave it empty for the cluster's tenant
{{- end }}
{{- end }}
{{- if and (include "entra-redis.projectsToken" .) (not .Values.workloadIdentity.tenantId) }}
* workloadIdentity.webhook is false and workloadIdentity.tenantId is not set: without the webhook the tenant must be set; az account show --query tenantId --output tsv
{{- end }}
{{- end }}
{{- with .Values.managedIdentity.clientId }}
{{- if not (regexMatch $guid .) }}
* managedIdentity.clientId is {{ . | quote }}, which is not a GUID: give the client id of the node's identity, az aks show --name CLUSTER --resource-group GROUP --query identityProfile.kubeletidentity.clientId --output tsv
{{- end }}
{{- if not $.Values.managedIdentity.enabled }}
* managedIdentity.clientId is set and managedIdentity.enabled is false: enable it, or set workloadIdentity.clientId instead
{{- end }}
{{- end }}
{{- if not $usesEntra }}
{{- if .Values.workloadIdentity.clientId }}
* workloadIdentity.clientId is set and redis.auth is {{ .Values.redis.auth }}: the identity would not be used; remove one of the two
{{- end }}
{{- if .Values.managedIdentity.enabled }}
* managedIdentity.enabled is true and redis.auth is {{ .Values.redis.auth }}: the identity would not be used; remove one of the two
{{- end }}
{{- end }}
{{- if and $usesEntra (not .Values.redis.tls) }}
* redis.tls is false and redis.auth is entra: tokens are never sent without TLS; remove redis.tls, or set redis.auth to none or key
{{- end }}
{{- if and (eq .Values.redis.auth "key") (not .Values.redis.existingSecret.name) }}
* redis.auth is key and redis.existingSecret.name is not set: put the key into a Secret and set its name:
    kubectl create secret generic NAME --namespace {{ .Release.Namespace }} --from-literal=REDIS_KEY=…
{{- end }}
{{- if and (ne .Values.redis.auth "key") .Values.redis.existingSecret.name }}
* redis.existingSecret.name is set and redis.auth is {{ .Values.redis.auth }}: the key would not be used; --set redis.auth=key, or remove the Secret
{{- end }}

{{- /* The service account, labels and annotations. */}}
{{- if not .Values.serviceAccount.create }}
{{- if not .Values.serviceAccount.name }}
* serviceAccount.create is false and serviceAccount.name is not set: give the name of the service account that the pods use
{{- end }}
{{- if .Values.serviceAccount.annotations }}
* serviceAccount.annotations are set and serviceAccount.create is false: the chart does not change an existing service account; annotate it with kubectl annotate serviceaccount --namespace {{ .Release.Namespace }} NAME …
{{- end }}
{{- if and (include "entra-redis.workloadIdentity" .) .Values.workloadIdentity.webhook .Values.serviceAccount.name }}
{{- /* lookup returns nothing without a cluster, as in `helm template`. */}}
{{- $live := lookup "v1" "ServiceAccount" .Release.Namespace .Values.serviceAccount.name }}
{{- if $live }}
{{- $has := get (($live.metadata).annotations | default dict) "azure.workload.identity/client-id" }}
{{- $wants := .Values.workloadIdentity.clientId }}
{{- if not $has }}
* service account {{ .Values.serviceAccount.name }} has no annotation azure.workload.identity/client-id, so the pods would have no identity:
    kubectl annotate serviceaccount --namespace {{ .Release.Namespace }} {{ .Values.serviceAccount.name }} azure.workload.identity/client-id={{ $wants | default "CLIENT_ID" }}
{{- else if and $wants (ne (lower $has) (lower $wants)) }}
* service account {{ .Values.serviceAccount.name }} is annotated with client id {{ $has }} and workloadIdentity.clientId is {{ $wants }}: correct one of the two
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $_ := .Values.serviceAccount.annotations }}
{{- if hasPrefix "azure.workload.identity/" $name }}
* serviceAccount.annotations has {{ $name }}: set workloadIdentity.clientId, tenantId and tokenExpirationSeconds instead
{{- end }}
{{- end }}
{{- range $name, $_ := .Values.podLabels }}
{{- if or (eq $name "azure.workload.identity/use") (hasPrefix "app.kubernetes.io/" $name) }}
* podLabels has {{ $name }}, which the chart sets; enable workload identity with workloadIdentity.enabled
{{- end }}
{{- end }}
{{- range $name, $_ := .Values.podAnnotations }}
{{- if eq $name "azure.workload.identity/skip-containers" }}
* podAnnotations has {{ $name }}: a container that the webhook skips has no identity; remove it
{{- end }}
{{- end }}
{{- range $name, $_ := .Values.commonLabels }}
{{- if or (hasPrefix "app.kubernetes.io/" $name) (hasPrefix "helm.sh/" $name) (hasPrefix "azure.workload.identity/" $name) }}
* commonLabels has {{ $name }}, which the chart sets: use another name
{{- end }}
{{- end }}

{{- /* Values that the service would reject at start. */}}
{{- range $path, $duration := dict "redis.connectTimeout" .Values.redis.connectTimeout "redis.commandTimeout" .Values.redis.commandTimeout "http.requestTimeout" .Values.http.requestTimeout "drain.timeout" .Values.drain.timeout }}
{{- if not (include "entra-redis.milliseconds" $duration | default "0" | int64) }}
* {{ $path }} is {{ $duration | quote }}: give a duration above zero and at most one day, such as 500ms, 5s or 2m
{{- end }}
{{- end }}
{{- if not (include "entra-redis.milliseconds" .Values.drain.delay) }}
* drain.delay is {{ .Values.drain.delay | quote }}: give a duration of at most one day, such as 0s, 500ms, 5s or 2m
{{- end }}
{{- if eq (int .Values.http.port) (int .Values.http.adminPort) }}
* http.port and http.adminPort are both {{ int .Values.http.port }}: the admin port shows the pods' identity and must not be reachable by clients; set different ports
{{- end }}
{{- if not (or (regexMatch "^[0-9]{1,3}(\\.[0-9]{1,3}){3}$" .Values.http.host) (regexMatch "^[0-9A-Fa-f:]*::?[0-9A-Fa-f:]*$" .Values.http.host)) }}
* http.host is {{ .Values.http.host | quote }}: give an address to listen on, 0.0.0.0 or ::
{{- end }}
{{- with .Values.entra.authorityHost }}
{{- if not (regexMatch "^https://[^/\\s:]+(:[0-9]+)?(/\\S*)?$" .) }}
* entra.authorityHost is {{ . | quote }}: give an https URL such as https://login.microsoftonline.com/
{{- end }}
{{- end }}
{{- if not (regexMatch "^\\S+/\\.default$" .Values.entra.scope) }}
* entra.scope is {{ .Values.entra.scope | quote }}: give one scope ending in /.default
{{- end }}
{{- with .Values.otel.endpoint }}
{{- if not (regexMatch "^https?://([^/\\s:]+|\\[[0-9A-Fa-f:]+\\])(:[0-9]+)?(/\\S*)?$" .) }}
* otel.endpoint is {{ . | quote }}: give the collector's http:// or https:// URL, such as http://collector.monitoring:4318
{{- end }}
{{- end }}
{{- if not .Values.otel.endpoint }}
{{- $elsewhere := false }}
{{- range .Values.extraEnv }}{{ if regexMatch "^OTEL_EXPORTER_OTLP_.*ENDPOINT$" .name }}{{ $elsewhere = true }}{{ end }}{{ end }}
{{- if and (not $elsewhere) (or (eq .Values.otel.logs "otlp") (eq .Values.otel.metrics "otlp")) }}
* otel.logs or otel.metrics is otlp and otel.endpoint is not set: nothing would be exported; set the collector's URL
{{- end }}
{{- end }}

{{- /* Additional variables. */}}
{{- $owner := include "entra-redis.variables" . | fromYaml }}
{{- $seen := dict }}
{{- range .Values.extraEnv }}
{{- if hasKey $owner .name }}
* extraEnv has {{ .name }}: set {{ get $owner .name }} instead
{{- else if hasKey $seen .name }}
* extraEnv has {{ .name }} twice: remove one
{{- else if and .value (regexMatch "^(AZURE_CLIENT_SECRET|AZURE_CLIENT_CERTIFICATE_PASSWORD|OTEL_EXPORTER_OTLP_.*HEADERS)$" .name) }}
* extraEnv has {{ .name }} as plain text: put it into a Secret and use valueFrom.secretKeyRef
{{- end }}
{{- $_ := set $seen .name true }}
{{- end }}

{{- /* Number of pods. */}}
{{- if and .Values.autoscaling.enabled .Values.keda.enabled }}
* autoscaling.enabled and keda.enabled are both true: both would change the number of replicas; disable one
{{- end }}
{{- if .Values.autoscaling.enabled }}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) }}
* autoscaling.minReplicas is above autoscaling.maxReplicas: correct one of the two
{{- end }}
{{- if and .Values.autoscaling.targetCPUUtilizationPercentage (not ((.Values.resources).requests).cpu) }}
* autoscaling.targetCPUUtilizationPercentage is a percentage of resources.requests.cpu, which is not set: set it, or set the percentage to 0
{{- end }}
{{- if not (or .Values.autoscaling.targetCPUUtilizationPercentage .Values.autoscaling.metrics) }}
* autoscaling.enabled is true without a metric to scale by: set autoscaling.targetCPUUtilizationPercentage or autoscaling.metrics
{{- end }}
{{- end }}
{{- if .Values.keda.enabled }}
{{- if gt (int .Values.keda.minReplicas) (int .Values.keda.maxReplicas) }}
* keda.minReplicas is above keda.maxReplicas: correct one of the two
{{- end }}
{{- if not .Values.keda.triggers }}
* keda.enabled is true without keda.triggers: set at least one trigger
{{- end }}
{{- end }}
{{- if regexMatch "^0%?$" (toString .Values.strategy.maxSurge) }}
* strategy.maxSurge is {{ .Values.strategy.maxSurge }}: no pod is removed before its successor is ready, so at least one additional pod must be allowed; give 1 or more
{{- end }}
{{- if and .Values.podDisruptionBudget.enabled (regexMatch "^0%?$" (toString .Values.podDisruptionBudget.maxUnavailable)) }}
* podDisruptionBudget.maxUnavailable is {{ .Values.podDisruptionBudget.maxUnavailable }}: a node with one of the pods could never be drained; give 1 or more
{{- end }}

{{- /* Access and monitoring. */}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
* ingress.enabled is true without ingress.hosts: set the host, --set ingress.hosts[0].host=…
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
* httpRoute.enabled is true without httpRoute.parentRefs: set the Gateway, --set httpRoute.parentRefs[0].name=…
{{- end }}
{{- if or .Values.monitor.prometheusOperator .Values.monitor.azureManagedPrometheus }}
{{- $interval := include "entra-redis.milliseconds" .Values.monitor.interval | default "0" | int64 }}
{{- $limit := include "entra-redis.milliseconds" .Values.monitor.scrapeTimeout | default "0" | int64 }}
{{- if or (not $interval) (not $limit) (gt $limit $interval) }}
* monitor.interval is {{ .Values.monitor.interval | quote }} and monitor.scrapeTimeout {{ .Values.monitor.scrapeTimeout | quote }}: give durations such as 30s, the timeout not above the interval
{{- end }}
{{- end }}
{{- end }}
