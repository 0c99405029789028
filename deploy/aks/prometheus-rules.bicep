// The alerts of entra-redis for Azure Managed Prometheus, which takes rules as Azure resources.
// Made from deploy/prometheus/rules.yaml by `tests/aks --write`: change it there.
//
//   az deployment group create --resource-group "$RESOURCE_GROUP" --template-file deploy/aks/prometheus-rules.bicep \
//     --parameters monitorWorkspaceId="$WORKSPACE_ID" clusterName="$CLUSTER"

@description('Region of the Azure Monitor workspace, which must be that of its rules.')
param location string = resourceGroup().location

@description('Resource id of the Azure Monitor workspace that has the metrics: output monitorWorkspaceId of main.bicep.')
param monitorWorkspaceId string

@description('Cluster whose metrics are looked at, as in their label cluster: its name, or its alias in the agent\'s settings.')
param clusterName string

@description('Resource ids of the action groups that are told of alerts. Empty: alerts are seen in the portal alone.')
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
          summary: 'The Entra ID token held ends in {{ $value | humanizeDuration }}'
          description: '{{ $labels.instance }} ({{ $labels.namespace }}/{{ $labels.pod }}) holds a token with less than 10 % of its life or 3 minutes left and got no newer one. At its end the pod is not ready and its requests get 503.'
          runbook: 'The log says why Entra ID gives none: the identity, its federated credential, or the way to the token endpoint. kubectl exec -n {{ $labels.namespace }} {{ $labels.pod }} -- entra-redis doctor'
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
          summary: 'A connection to Redis is signed in for another {{ $value | humanizeDuration }} only'
          description: 'A connection of {{ $labels.instance }} ({{ $labels.namespace }}/{{ $labels.pod }}) did not sign in again with a newer token. Redis closes it when the token ends.'
          runbook: 'redis_auth_total says whether Redis refuses the token; entra_token_expiry_timestamp_seconds whether there is a newer one. kubectl exec -n {{ $labels.namespace }} {{ $labels.pod }} -- entra-redis doctor'
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
          summary: 'Entra ID gives no new token'
          description: '{{ $labels.instance }} ({{ $labels.namespace }}/{{ $labels.pod }}) has asked in vain for over 5 minutes. The token held serves until its end; a pod that never had one is not ready.'
          runbook: 'The log line "token refresh failed" carries the AADSTS code and what it means. kubectl exec -n {{ $labels.namespace }} {{ $labels.pod }} -- entra-redis doctor'
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
          summary: 'Redis refuses the sign-in or does not answer it'
          description: 'AUTH from {{ $labels.instance }} ({{ $labels.namespace }}/{{ $labels.pod }}) has failed for over 5 minutes. Earlier sign-ins hold until their tokens end.'
          runbook: 'Mostly the identity is no Redis user of this cache, or its access policy was taken away: compare its object id. kubectl exec -n {{ $labels.namespace }} {{ $labels.pod }} -- entra-redis doctor'
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
          description: '{{ $labels.instance }} ({{ $labels.namespace }}/{{ $labels.pod }}) has had no signed-in connection for 2 minutes: it is not ready, and what reaches it gets 503.'
          runbook: 'In this order: a token, the name, the port (10000; with OSSCluster 8500 to 8599 too), TLS, the sign-in. kubectl exec -n {{ $labels.namespace }} {{ $labels.pod }} -- entra-redis doctor'
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
          summary: '{{ $value | humanizePercentage }} of the requests fail: the error budget of 30 days is gone in days'
          description: 'GET /sample of {{ $labels.job }} ({{ $labels.namespace }}) is answered with a 5xx more often than 99.9 % over 30 days allow.'
          runbook: '503: no token, no connection, or shed; 504: Redis does not answer in time; the alerts beside this one say which. kubectl exec -n {{ $labels.namespace }} deploy/entra-redis -- entra-redis doctor'
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
          summary: '{{ $value | humanizePercentage }} of the requests fail: the error budget of 30 days will not last'
          description: 'GET /sample of {{ $labels.job }} ({{ $labels.namespace }}) is answered with a 5xx more often than 99.9 % over 30 days allow.'
          runbook: '503: no token, no connection, or shed; 504: Redis does not answer in time; the alerts beside this one say which. kubectl exec -n {{ $labels.namespace }} deploy/entra-redis -- entra-redis doctor'
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
          summary: '{{ $value | humanizePercentage }} of the requests take over 100 ms: the error budget of 30 days is gone in days'
          description: 'GET /sample of {{ $labels.job }} ({{ $labels.namespace }}) is slower than 99 % within 100 ms over 30 days allow.'
          runbook: 'db_client_operation_duration_seconds says whether it is Redis; else look at CPU throttling and requests in progress. kubectl exec -n {{ $labels.namespace }} deploy/entra-redis -- entra-redis doctor'
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
          summary: '{{ $value | humanizePercentage }} of the requests take over 100 ms: the error budget of 30 days will not last'
          description: 'GET /sample of {{ $labels.job }} ({{ $labels.namespace }}) is slower than 99 % within 100 ms over 30 days allow.'
          runbook: 'db_client_operation_duration_seconds says whether it is Redis; else look at CPU throttling and requests in progress. kubectl exec -n {{ $labels.namespace }} deploy/entra-redis -- entra-redis doctor'
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
          description: '{{ $labels.instance }} ({{ $labels.namespace }}/{{ $labels.pod }}) is among the targets and has not answered for 5 minutes.'
          runbook: 'Nothing else here sees this replica while it is silent: is the pod up, is the admin port open to Prometheus? kubectl exec -n {{ $labels.namespace }} {{ $labels.pod }} -- entra-redis doctor'
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
          summary: 'No replica answers Prometheus'
          description: '{{ $labels.job }} ({{ $labels.namespace }}) was there within the last day and no replica has been scraped for 5 minutes.'
          runbook: 'Was it uninstalled, scaled to nothing, or is the monitor or the network policy broken? kubectl exec -n {{ $labels.namespace }} deploy/entra-redis -- entra-redis doctor'
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
          runbook: 'The body of /readyz names the check that fails; kubectl describe pod says why there is no container. kubectl exec -n {{ $labels.namespace }} {{ $labels.pod }} -- entra-redis doctor'
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
          summary: 'It was restarted {{ $value }} times within the hour'
          description: '{{ with $labels.pod }}{{ $labels.namespace }}/{{ . }}{{ else }}{{ $labels.instance }}{{ end }} does not stay up.'
          runbook: 'Exit code 64 is the configuration, 137 memory or a probe: kubectl logs --previous, and a copy of the pod that runs the doctor. kubectl debug -n {{ $labels.namespace }} {{ $labels.pod }} --copy-to={{ $labels.pod }}-doctor --container=entra-redis --attach -- entra-redis doctor'
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
          description: 'Nobody took them from the standard output of {{ $labels.instance }} ({{ $labels.namespace }}/{{ $labels.pod }}) in time.'
          runbook: 'The node\'s log collector stands still or RUST_LOG says too much. Requests are not held up. kubectl exec -n {{ $labels.namespace }} {{ $labels.pod }} -- entra-redis doctor'
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
          runbook: 'OTEL_EXPORTER_OTLP_ENDPOINT is wrong, or the collector is away or too slow. Requests are not held up. kubectl exec -n {{ $labels.namespace }} {{ $labels.pod }} -- entra-redis doctor'
        }
        actions: actions
      }
    ]
  }
}
