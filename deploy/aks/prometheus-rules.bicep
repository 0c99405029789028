// The alerts of entra-redis for Azure Managed Prometheus, which expects rules as Azure resources.
// Generated from deploy/prometheus/rules.yaml by `tests/aks --write`; change that file instead.
//
//   az deployment group create --resource-group "$RESOURCE_GROUP" --template-file deploy/aks/prometheus-rules.bicep \
//     --parameters monitorWorkspaceId="$WORKSPACE_ID" clusterName="$CLUSTER"

@description('Region of the Azure Monitor workspace and of its rules, which must be the same.')
param location string = resourceGroup().location

@description('Resource id of the Azure Monitor workspace that stores the metrics: output monitorWorkspaceId of main.bicep.')
param monitorWorkspaceId string

@description('Cluster to which the rules apply, as in the label cluster: its name, or its alias in the agent\'s settings.')
param clusterName string

@description('Resource ids of the action groups that alerts notify. If empty, alerts appear only in the portal.')
param actionGroupIds array = []

var actions = [for id in actionGroupIds: {
  actionGroupId: id
}]

resource ratios 'Microsoft.AlertsManagement/prometheusRuleGroups@2023-03-01' = {
  name: 'entra-redis-ratios-${clusterName}'
  location: location
  properties: {
    scopes: [monitorWorkspaceId]
    clusterName: clusterName
    enabled: true
    interval: 'PT1M'
    rules: [
      {
        record: 'entra_redis:sample_errors:ratio_rate5m'
        expression: '''
sum by (cluster, namespace, job) (rate(http_server_request_duration_seconds_count{http_route="/sample", http_response_status_code=~"5.."}[5m]))
/
sum by (cluster, namespace, job) (rate(http_server_request_duration_seconds_count{http_route="/sample"}[5m]))
'''
      }
      {
        record: 'entra_redis:sample_errors:ratio_rate30m'
        expression: '''
sum by (cluster, namespace, job) (rate(http_server_request_duration_seconds_count{http_route="/sample", http_response_status_code=~"5.."}[30m]))
/
sum by (cluster, namespace, job) (rate(http_server_request_duration_seconds_count{http_route="/sample"}[30m]))
'''
      }
      {
        record: 'entra_redis:sample_errors:ratio_rate1h'
        expression: '''
sum by (cluster, namespace, job) (rate(http_server_request_duration_seconds_count{http_route="/sample", http_response_status_code=~"5.."}[1h]))
/
sum by (cluster, namespace, job) (rate(http_server_request_duration_seconds_count{http_route="/sample"}[1h]))
'''
      }
      {
        record: 'entra_redis:sample_errors:ratio_rate6h'
        expression: '''
sum by (cluster, namespace, job) (rate(http_server_request_duration_seconds_count{http_route="/sample", http_response_status_code=~"5.."}[6h]))
/
sum by (cluster, namespace, job) (rate(http_server_request_duration_seconds_count{http_route="/sample"}[6h]))
'''
      }
      {
        record: 'entra_redis:sample_errors:ratio_rate3d'
        expression: '''
sum by (cluster, namespace, job) (rate(http_server_request_duration_seconds_count{http_route="/sample", http_response_status_code=~"5.."}[3d]))
/
sum by (cluster, namespace, job) (rate(http_server_request_duration_seconds_count{http_route="/sample"}[3d]))
'''
      }
      {
        record: 'entra_redis:sample_slow:ratio_rate5m'
        expression: '''
1 - sum by (cluster, namespace, job) (rate(http_server_request_duration_seconds_bucket{http_route="/sample", http_response_status_code!~"5..", le="0.1"}[5m]))
/
sum by (cluster, namespace, job) (rate(http_server_request_duration_seconds_count{http_route="/sample", http_response_status_code!~"5.."}[5m]))
'''
      }
      {
        record: 'entra_redis:sample_slow:ratio_rate30m'
        expression: '''
1 - sum by (cluster, namespace, job) (rate(http_server_request_duration_seconds_bucket{http_route="/sample", http_response_status_code!~"5..", le="0.1"}[30m]))
/
sum by (cluster, namespace, job) (rate(http_server_request_duration_seconds_count{http_route="/sample", http_response_status_code!~"5.."}[30m]))
'''
      }
      {
        record: 'entra_redis:sample_slow:ratio_rate1h'
        expression: '''
1 - sum by (cluster, namespace, job) (rate(http_server_request_duration_seconds_bucket{http_route="/sample", http_response_status_code!~"5..", le="0.1"}[1h]))
/
sum by (cluster, namespace, job) (rate(http_server_request_duration_seconds_count{http_route="/sample", http_response_status_code!~"5.."}[1h]))
'''
      }
      {
        record: 'entra_redis:sample_slow:ratio_rate6h'
        expression: '''
1 - sum by (cluster, namespace, job) (rate(http_server_request_duration_seconds_bucket{http_route="/sample", http_response_status_code!~"5..", le="0.1"}[6h]))
/
sum by (cluster, namespace, job) (rate(http_server_request_duration_seconds_count{http_route="/sample", http_response_status_code!~"5.."}[6h]))
'''
      }
      {
        record: 'entra_redis:sample_slow:ratio_rate3d'
        expression: '''
1 - sum by (cluster, namespace, job) (rate(http_server_request_duration_seconds_bucket{http_route="/sample", http_response_status_code!~"5..", le="0.1"}[3d]))
/
sum by (cluster, namespace, job) (rate(http_server_request_duration_seconds_count{http_route="/sample", http_response_status_code!~"5.."}[3d]))
'''
      }
    ]
  }
}

resource credential 'Microsoft.AlertsManagement/prometheusRuleGroups@2023-03-01' = {
  name: 'entra-redis-credential-${clusterName}'
  location: location
  properties: {
    scopes: [monitorWorkspaceId]
    clusterName: clusterName
    enabled: true
    interval: 'PT1M'
    rules: [
      {
        alert: 'EntraRedisTokenExpiring'
        expression: '''
(entra_token_expiry_timestamp_seconds - time())
< clamp_max(0.1 * max_over_time((entra_token_expiry_timestamp_seconds - time())[30m:1m]), 180)
'''
        severity: 0
        labels: {
          severity: 'critical'
        }
        annotations: {
          summary: 'The Entra ID token expires in {{ $value | humanizeDuration }}'
          description: '{{ $labels.instance }} ({{ $labels.namespace }}/{{ $labels.pod }}) has a token with less than 10 % of its lifetime or 3 minutes left and received no newer one. When it expires, the pod becomes not ready and requests to it get 503.'
          runbook: 'Check the log for the cause: the identity, its federated credential, or the connection to the token endpoint. kubectl exec -n {{ $labels.namespace }} {{ $labels.pod }} -- entra-redis doctor'
        }
        actions: actions
      }
      {
        alert: 'EntraRedisConnectionTokenExpiring'
        expression: '''
(redis_connection_token_expiry_timestamp_seconds - time())
< clamp_max(0.1 * max_over_time((redis_connection_token_expiry_timestamp_seconds - time())[30m:1m]), 180)
and on (cluster, namespace, job, instance)
sum by (cluster, namespace, job, instance) (db_client_connection_count) > 0
'''
        severity: 0
        labels: {
          severity: 'critical'
        }
        annotations: {
          summary: 'A Redis connection\'s authentication expires in {{ $value | humanizeDuration }}'
          description: 'A connection of {{ $labels.instance }} ({{ $labels.namespace }}/{{ $labels.pod }}) did not re-authenticate with a newer token. Redis closes it when the token expires.'
          runbook: 'Check redis_auth_total for rejected tokens and entra_token_expiry_timestamp_seconds for a newer token. kubectl exec -n {{ $labels.namespace }} {{ $labels.pod }} -- entra-redis doctor'
        }
        actions: actions
      }
      {
        alert: 'EntraRedisTokenRefreshFailing'
        expression: 'sum without (source, outcome) (increase(entra_token_refresh_total{outcome="failure"}[5m])) > 0'
        severity: 2
        for: 'PT10M'
        labels: {
          severity: 'warning'
        }
        annotations: {
          summary: 'Token refresh from Entra ID fails'
          description: '{{ $labels.instance }} ({{ $labels.namespace }}/{{ $labels.pod }}) has not received a new token for over 5 minutes. The current token stays in use until it expires; a pod that never had a token is not ready.'
          runbook: 'The log message "token refresh failed" contains the AADSTS code and its cause. kubectl exec -n {{ $labels.namespace }} {{ $labels.pod }} -- entra-redis doctor'
        }
        actions: actions
      }
      {
        alert: 'EntraRedisAuthFailing'
        expression: 'sum without (kind, outcome) (increase(redis_auth_total{outcome="failure"}[5m])) > 0'
        severity: 2
        for: 'PT10M'
        labels: {
          severity: 'warning'
        }
        annotations: {
          summary: 'Redis rejects authentication or does not respond to it'
          description: 'AUTH from {{ $labels.instance }} ({{ $labels.namespace }}/{{ $labels.pod }}) has failed for over 5 minutes. Open connections stay authenticated until their tokens expire.'
          runbook: 'The usual cause: the identity is not a Redis user of this cache, or its access policy assignment was removed; compare its object id. kubectl exec -n {{ $labels.namespace }} {{ $labels.pod }} -- entra-redis doctor'
        }
        actions: actions
      }
      {
        alert: 'EntraRedisNoConnection'
        expression: '''
sum without (db_client_connection_state) (db_client_connection_count) == 0
and on (cluster, namespace, job, instance) entra_redis_build_info
'''
        severity: 0
        for: 'PT2M'
        labels: {
          severity: 'critical'
        }
        annotations: {
          summary: 'No connection to Redis is open'
          description: '{{ $labels.instance }} ({{ $labels.namespace }}/{{ $labels.pod }}) has had no authenticated connection for 2 minutes: it is not ready, and requests that reach it get 503.'
          runbook: 'Check in this order: token, DNS, port (10000; with OSSCluster also 8500 to 8599), TLS, authentication. kubectl exec -n {{ $labels.namespace }} {{ $labels.pod }} -- entra-redis doctor'
        }
        actions: actions
      }
    ]
  }
}

resource budget 'Microsoft.AlertsManagement/prometheusRuleGroups@2023-03-01' = {
  name: 'entra-redis-budget-${clusterName}'
  location: location
  properties: {
    scopes: [monitorWorkspaceId]
    clusterName: clusterName
    enabled: true
    interval: 'PT1M'
    rules: [
      {
        alert: 'EntraRedisErrorBudgetBurn'
        expression: '''
(entra_redis:sample_errors:ratio_rate1h > 14.4 * 0.001 and entra_redis:sample_errors:ratio_rate5m > 14.4 * 0.001)
or
(entra_redis:sample_errors:ratio_rate6h > 6 * 0.001 and entra_redis:sample_errors:ratio_rate30m > 6 * 0.001)
'''
        severity: 0
        labels: {
          severity: 'critical'
        }
        annotations: {
          summary: '{{ $value | humanizePercentage }} of the requests fail: the 30-day error budget will be spent within days'
          description: 'GET /sample of {{ $labels.job }} ({{ $labels.namespace }}) returns more 5xx responses than the objective of 99.9 % over 30 days allows.'
          runbook: '503: no token, no connection, or too many requests; 504: Redis does not respond in time. Other firing alerts show which. kubectl exec -n {{ $labels.namespace }} deploy/entra-redis -- entra-redis doctor'
        }
        actions: actions
      }
      {
        alert: 'EntraRedisErrorBudgetBurn'
        expression: 'entra_redis:sample_errors:ratio_rate3d > 0.001 and entra_redis:sample_errors:ratio_rate6h > 0.001'
        severity: 2
        labels: {
          severity: 'warning'
        }
        annotations: {
          summary: '{{ $value | humanizePercentage }} of the requests fail: the 30-day error budget will be exceeded'
          description: 'GET /sample of {{ $labels.job }} ({{ $labels.namespace }}) returns more 5xx responses than the objective of 99.9 % over 30 days allows.'
          runbook: '503: no token, no connection, or too many requests; 504: Redis does not respond in time. Other firing alerts show which. kubectl exec -n {{ $labels.namespace }} deploy/entra-redis -- entra-redis doctor'
        }
        actions: actions
      }
      {
        alert: 'EntraRedisLatencyBudgetBurn'
        expression: '''
(entra_redis:sample_slow:ratio_rate1h > 14.4 * 0.01 and entra_redis:sample_slow:ratio_rate5m > 14.4 * 0.01)
or
(entra_redis:sample_slow:ratio_rate6h > 6 * 0.01 and entra_redis:sample_slow:ratio_rate30m > 6 * 0.01)
'''
        severity: 0
        labels: {
          severity: 'critical'
        }
        annotations: {
          summary: '{{ $value | humanizePercentage }} of the requests take over 100 ms: the 30-day error budget will be spent within days'
          description: 'GET /sample of {{ $labels.job }} ({{ $labels.namespace }}) is slower than the objective of 99 % within 100 ms over 30 days allows.'
          runbook: 'Check db_client_operation_duration_seconds for a slow Redis, then CPU throttling and requests in progress. kubectl exec -n {{ $labels.namespace }} deploy/entra-redis -- entra-redis doctor'
        }
        actions: actions
      }
      {
        alert: 'EntraRedisLatencyBudgetBurn'
        expression: 'entra_redis:sample_slow:ratio_rate3d > 0.01 and entra_redis:sample_slow:ratio_rate6h > 0.01'
        severity: 2
        labels: {
          severity: 'warning'
        }
        annotations: {
          summary: '{{ $value | humanizePercentage }} of the requests take over 100 ms: the 30-day error budget will be exceeded'
          description: 'GET /sample of {{ $labels.job }} ({{ $labels.namespace }}) is slower than the objective of 99 % within 100 ms over 30 days allows.'
          runbook: 'Check db_client_operation_duration_seconds for a slow Redis, then CPU throttling and requests in progress. kubectl exec -n {{ $labels.namespace }} deploy/entra-redis -- entra-redis doctor'
        }
        actions: actions
      }
    ]
  }
}

resource pods 'Microsoft.AlertsManagement/prometheusRuleGroups@2023-03-01' = {
  name: 'entra-redis-pods-${clusterName}'
  location: location
  properties: {
    scopes: [monitorWorkspaceId]
    clusterName: clusterName
    enabled: true
    interval: 'PT1M'
    rules: [
      {
        alert: 'EntraRedisTargetDown'
        expression: '''
up == 0
and on (cluster, namespace, job, instance) last_over_time(entra_redis_build_info[1d])
'''
        severity: 2
        for: 'PT5M'
        labels: {
          severity: 'warning'
        }
        annotations: {
          summary: 'A replica cannot be scraped'
          description: '{{ $labels.instance }} ({{ $labels.namespace }}/{{ $labels.pod }}) is a target and has not responded for 5 minutes.'
          runbook: 'No other alert covers this replica while it cannot be scraped. Check that the pod runs and that Prometheus can reach the admin port. kubectl exec -n {{ $labels.namespace }} {{ $labels.pod }} -- entra-redis doctor'
        }
        actions: actions
      }
      {
        alert: 'EntraRedisAbsent'
        expression: '''
group by (cluster, namespace, job) (last_over_time(entra_redis_build_info[1d]))
unless
group by (cluster, namespace, job) (entra_redis_build_info)
'''
        severity: 0
        for: 'PT5M'
        labels: {
          severity: 'critical'
        }
        annotations: {
          summary: 'No replica can be scraped'
          description: '{{ $labels.job }} ({{ $labels.namespace }}) was scraped within the last day, and no replica has been scraped for 5 minutes.'
          runbook: 'Check whether it was uninstalled or scaled to zero, then the monitor and the network policy. kubectl exec -n {{ $labels.namespace }} deploy/entra-redis -- entra-redis doctor'
        }
        actions: actions
      }
      {
        alert: 'EntraRedisPodNotReady'
        expression: '''
max by (cluster, namespace, pod) (kube_pod_container_status_ready{container="entra-redis"}) == 0
and on (cluster, namespace, pod) kube_pod_status_phase{phase=~"Pending|Running|Unknown"} == 1
'''
        severity: 2
        for: 'PT10M'
        labels: {
          severity: 'warning'
        }
        annotations: {
          summary: 'A pod is not ready'
          description: '{{ $labels.namespace }}/{{ $labels.pod }} has not been ready for 10 minutes.'
          runbook: 'The body of /readyz names the failed check; kubectl describe pod shows why a container did not start. kubectl exec -n {{ $labels.namespace }} {{ $labels.pod }} -- entra-redis doctor'
        }
        actions: actions
      }
      {
        alert: 'EntraRedisRestarting'
        expression: '''
max by (cluster, namespace, pod) (round(increase(kube_pod_container_status_restarts_total{container="entra-redis"}[1h]))) >= 3
or on (cluster, namespace, pod)
(
  changes(process_start_time_seconds[1h]) >= 3
  and on (cluster, namespace, job, instance) last_over_time(entra_redis_build_info[1h])
)
'''
        severity: 2
        labels: {
          severity: 'warning'
        }
        annotations: {
          summary: 'A container restarted {{ $value }} times within an hour'
          description: '{{ with $labels.pod }}{{ $labels.namespace }}/{{ . }}{{ else }}{{ $labels.instance }}{{ end }} restarts repeatedly.'
          runbook: 'Exit code 64 is a configuration fault, 137 is memory or a probe: see kubectl logs --previous, and run doctor in a copy of the pod. kubectl debug -n {{ $labels.namespace }} {{ $labels.pod }} --copy-to={{ $labels.pod }}-doctor --container=entra-redis --attach -- entra-redis doctor'
        }
        actions: actions
      }
    ]
  }
}

resource telemetry 'Microsoft.AlertsManagement/prometheusRuleGroups@2023-03-01' = {
  name: 'entra-redis-telemetry-${clusterName}'
  location: location
  properties: {
    scopes: [monitorWorkspaceId]
    clusterName: clusterName
    enabled: true
    interval: 'PT1M'
    rules: [
      {
        alert: 'EntraRedisLogLinesDropped'
        expression: 'increase(entra_redis_log_lines_dropped_total[15m]) > 0'
        severity: 2
        labels: {
          severity: 'warning'
        }
        annotations: {
          summary: 'Log lines are lost'
          description: 'The standard output of {{ $labels.instance }} ({{ $labels.namespace }}/{{ $labels.pod }}) was not read in time.'
          runbook: 'The node\'s log collector does not read, or RUST_LOG is too verbose. Requests are not delayed. kubectl exec -n {{ $labels.namespace }} {{ $labels.pod }} -- entra-redis doctor'
        }
        actions: actions
      }
      {
        alert: 'EntraRedisTelemetryDropped'
        expression: 'sum without (reason) (increase(entra_redis_telemetry_dropped_total[15m])) > 0'
        severity: 2
        for: 'PT15M'
        labels: {
          severity: 'warning'
        }
        annotations: {
          summary: 'Some {{ $labels.signal }} do not reach the collector'
          description: '{{ $labels.instance }} ({{ $labels.namespace }}/{{ $labels.pod }}) has dropped {{ $labels.signal }} for over 15 minutes.'
          runbook: 'OTEL_EXPORTER_OTLP_ENDPOINT is wrong, or the collector is unavailable or too slow. Requests are not delayed. kubectl exec -n {{ $labels.namespace }} {{ $labels.pod }} -- entra-redis doctor'
        }
        actions: actions
      }
    ]
  }
}
