// entra-redis on Azure Container Apps with Azure Managed Redis, from an empty resource group to GET /sample:
// identities, network, cache and app, without a password, an access key or a connection string of Redis anywhere.
//
// The only prerequisite is a container registry in the same resource group, with the image in it:
//
//   az deployment group create --resource-group "$RESOURCE_GROUP" --template-file deploy/container-apps/main.bicep \
//     --parameters registryName="$REGISTRY_NAME" image="$IMAGE"
//
// The deployment requires Owner, or Contributor and Role Based Access Control Administrator: it assigns one role.

@description('Region of all resources.')
param location string = resourceGroup().location

@description('Name of the container app, and prefix of the other names.')
@minLength(2)
@maxLength(32)
param appName string = 'entra-redis'

@description('Name of the container registry, in this resource group, that contains the image.')
param registryName string

@description('Repository and tag of the image in that registry: entra-redis:TAG. A new tag creates a new revision; the same tag does not.')
param image string

@description('SKU of the cache. Balanced_B0 is the smallest.')
param redisSku string = 'Balanced_B0'

@description('Keep a replica of the cache\'s data. Without it the cache costs half as much and has no SLA.')
param redisHighAvailability bool = true

@description('Make the cache reachable only through a private endpoint, and put the app into its own network. Decide before the first deployment: an environment cannot be moved into a network later.')
param privateEndpoint bool = false

@description('Single: a new revision replaces the old one as soon as it is ready. Multiple: old ones stay until they are deactivated.')
@allowed(['Single', 'Multiple'])
param activeRevisionsMode string = 'Single'

@description('Minimum number of replicas. With 0, the first request after a pause waits for a start, a token and a connection.')
@minValue(0)
param minReplicas int = 1

@description('Maximum number of replicas.')
@minValue(1)
param maxReplicas int = 5

@description('Concurrent requests per replica above which another replica is started.')
@minValue(1)
param concurrentRequests int = 100

@description('OTLP collector (gRPC) that also receives metrics and traces, with its port, such as https://collector.example.com:4317. If empty, traces go only to Application Insights and metrics are not exported.')
param otlpEndpoint string = ''

@description('Headers sent to that collector, such as {"api-key": "..."}.')
@secure()
param otlpHeaders object = {}

var environmentName = '${appName}-environment'
var identityName = '${appName}-app'
var pullIdentityName = '${appName}-pull'
// The name is part of a host name, which must be unique in the region.
var redisName = '${appName}-${uniqueString(resourceGroup().id)}'
// Azure's built-in role AcrPull, which has this id in every tenant.
var acrPull = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '7f951dda-4ed3-4680-a7ca-43fe172d538d')

// Identities ---------------------------------------------------------------------------------------------------------

// The app's identity. Its object id is the Redis user; its client id is AZURE_CLIENT_ID.
resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: identityName
  location: location
}

// The identity that pulls the image. Separate, so that the app itself cannot access the registry.
resource pullIdentity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: pullIdentityName
  location: location
}

resource registry 'Microsoft.ContainerRegistry/registries@2025-11-01' existing = {
  name: registryName
}

// A role assignment takes minutes to become effective. Creating the cache takes longer, and the app waits for both.
resource pullRole 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(registry.id, pullIdentity.id, acrPull)
  scope: registry
  properties: {
    roleDefinitionId: acrPull
    principalId: pullIdentity.properties.principalId
    // Explicit, because the type would be looked up in the directory, where a new identity may not yet be found.
    principalType: 'ServicePrincipal'
  }
}

// Cache --------------------------------------------------------------------------------------------------------------

resource redis 'Microsoft.Cache/redisEnterprise@2025-07-01' = {
  name: redisName
  location: location
  sku: {
    name: redisSku
  }
  properties: {
    // The highest value that can be set. The service itself uses only TLS 1.3.
    minimumTlsVersion: '1.2'
    highAvailability: redisHighAvailability ? 'Enabled' : 'Disabled'
    publicNetworkAccess: privateEndpoint ? 'Disabled' : 'Enabled'
  }
}

resource database 'Microsoft.Cache/redisEnterprise/databases@2025-07-01' = {
  parent: redis
  name: 'default'
  properties: {
    port: 10000
    clientProtocol: 'Encrypted'
    clusteringPolicy: 'OSSCluster'
    // Entra ID only: there is no key to leak.
    accessKeysAuthentication: 'Disabled'
  }
}

// The identity as a Redis user. The name may contain only letters and digits.
resource redisUser 'Microsoft.Cache/redisEnterprise/databases/accessPolicyAssignments@2025-07-01' = {
  parent: database
  name: 'app'
  properties: {
    accessPolicyName: 'default'
    user: {
      // The object id: with the client id Redis returns WRONGPASS.
      objectId: identity.properties.principalId
    }
  }
}

// Network, only with privateEndpoint ---------------------------------------------------------------------------------

resource network 'Microsoft.Network/virtualNetworks@2025-05-01' = if (privateEndpoint) {
  name: '${appName}-network'
  location: location
  properties: {
    addressSpace: {
      addressPrefixes: ['10.0.0.0/24']
    }
    subnets: [
      {
        name: 'apps'
        properties: {
          // At least /27; while one revision replaces another, both need addresses.
          addressPrefix: '10.0.0.0/25'
          delegations: [
            {
              name: 'environment'
              properties: {
                serviceName: 'Microsoft.App/environments'
              }
            }
          ]
        }
      }
      {
        name: 'endpoints'
        properties: {
          addressPrefix: '10.0.0.128/27'
        }
      }
    ]
  }
}

resource redisEndpointInNetwork 'Microsoft.Network/privateEndpoints@2025-05-01' = if (privateEndpoint) {
  name: '${appName}-redis'
  location: location
  properties: {
    subnet: {
      id: '${network.id}/subnets/endpoints'
    }
    privateLinkServiceConnections: [
      {
        name: 'redis'
        properties: {
          privateLinkServiceId: redis.id
          groupIds: ['redisEnterprise']
        }
      }
    ]
  }
  // Sequential: a cache that is being changed may reject another change.
  dependsOn: [redisUser]
}

// With this zone the name *.redis.azure.net resolves to the private address. The app keeps using that name: the
// certificate contains it, but not the privatelink name.
resource zone 'Microsoft.Network/privateDnsZones@2024-06-01' = if (privateEndpoint) {
  name: 'privatelink.redis.azure.net'
  location: 'global'
}

resource zoneLink 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2024-06-01' = if (privateEndpoint) {
  parent: zone
  name: '${appName}-network'
  location: 'global'
  properties: {
    virtualNetwork: {
      id: network.id
    }
    registrationEnabled: false
  }
}

resource zoneRecords 'Microsoft.Network/privateEndpoints/privateDnsZoneGroups@2025-05-01' = if (privateEndpoint) {
  parent: redisEndpointInNetwork
  name: 'default'
  properties: {
    privateDnsZoneConfigs: [
      {
        name: 'redis'
        properties: {
          privateDnsZoneId: zone.id
        }
      }
    ]
  }
}

// Environment and telemetry ------------------------------------------------------------------------------------------

resource logs 'Microsoft.OperationalInsights/workspaces@2025-07-01' = {
  name: '${appName}-logs'
  location: location
  properties: {
    sku: {
      name: 'PerGB2018'
    }
    retentionInDays: 30
  }
}

resource insights 'Microsoft.Insights/components@2020-02-02' = {
  name: '${appName}-insights'
  location: location
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: logs.id
    IngestionMode: 'LogAnalytics'
    // The managed agent supports no other authentication.
    DisableLocalAuth: false
  }
}

// 2026-07-01 is the first version out of preview with openTelemetryConfiguration. An older Bicep warns that it does not know
// the version, and deploys it anyway.
resource environment 'Microsoft.App/managedEnvironments@2026-07-01' = {
  name: environmentName
  location: location
  properties: {
    appLogsConfiguration: {
      destination: 'log-analytics'
      logAnalyticsConfiguration: {
        customerId: logs.properties.customerId
        sharedKey: logs.listKeys().primarySharedKey
      }
    }
    appInsightsConfiguration: {
      connectionString: insights.properties.ConnectionString
    }
    // Application Insights accepts no metrics from the agent.
    openTelemetryConfiguration: {
      destinationsConfiguration: empty(otlpEndpoint) ? null : {
        otlpConfigurations: [
          {
            name: 'collector'
            endpoint: otlpEndpoint
            insecure: startsWith(otlpEndpoint, 'http://')
            headers: items(otlpHeaders)
          }
        ]
      }
      tracesConfiguration: {
        destinations: empty(otlpEndpoint) ? ['appInsights'] : ['appInsights', 'collector']
      }
      logsConfiguration: {
        destinations: ['appInsights']
      }
      metricsConfiguration: empty(otlpEndpoint) ? null : {
        destinations: ['collector']
      }
    }
    vnetConfiguration: privateEndpoint ? {
      infrastructureSubnetId: '${network.id}/subnets/apps'
    } : null
    workloadProfiles: [
      {
        name: 'Consumption'
        workloadProfileType: 'Consumption'
      }
    ]
  }
}

// App ----------------------------------------------------------------------------------------------------------------

resource app 'Microsoft.App/containerApps@2026-07-01' = {
  name: appName
  location: location
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identity.id}': {}
      '${pullIdentity.id}': {}
    }
  }
  properties: {
    environmentId: environment.id
    workloadProfileName: 'Consumption'
    configuration: {
      activeRevisionsMode: activeRevisionsMode
      ingress: {
        external: true
        targetPort: 8080
        transport: 'auto'
        allowInsecure: false
      }
      registries: [
        {
          server: registry.properties.loginServer
          identity: pullIdentity.id
        }
      ]
      // Main: the container can request tokens. None: it cannot, but the platform can still pull images.
      identitySettings: [
        {
          identity: identity.id
          lifecycle: 'Main'
        }
        {
          identity: pullIdentity.id
          lifecycle: 'None'
        }
      ]
    }
    template: {
      containers: [
        {
          name: 'entra-redis'
          image: '${registry.properties.loginServer}/${image}'
          resources: {
            cpu: json('0.25')
            memory: '0.5Gi'
          }
          // IDENTITY_ENDPOINT, IDENTITY_HEADER, OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_PROTOCOL come from
          // the platform. They must not be set here: values set here take precedence.
          env: [
            {
              // Different from targetPort, so that probes, metrics and the page with the identity are not on the internet.
              name: 'ADMIN_PORT'
              value: '9090'
            }
            {
              name: 'REDIS_ENDPOINT'
              value: '${redis.properties.hostName}:${database.properties.port}'
            }
            {
              // Without it, the platform cannot decide which identity is meant, and rejects the token request.
              name: 'AZURE_CLIENT_ID'
              value: identity.properties.clientId
            }
            {
              // Explicit, so that no other credential is tried, whatever the environment contains.
              name: 'AZURE_TOKEN_CREDENTIALS'
              value: 'ManagedIdentityCredential'
            }
            {
              name: 'OTEL_SERVICE_NAME'
              value: appName
            }
            {
              // Standard output already goes to Log Analytics, with trace_id in each line. With otlp the same lines would
              // be stored and charged a second time, and shown next to their traces in Application Insights.
              name: 'OTEL_LOGS_EXPORTER'
              value: 'none'
            }
            {
              // Nothing scrapes /metrics here, so metrics are pushed if there is a collector that accepts them.
              name: 'OTEL_METRICS_EXPORTER'
              value: empty(otlpEndpoint) ? 'none' : 'otlp'
            }
          ]
          // Container Apps accepts ports only as numbers, and a failureThreshold of at most 10.
          probes: [
            {
              // The process listens immediately; 20 s allow for a slow node.
              type: 'Startup'
              httpGet: {
                path: '/healthz'
                port: 9090
              }
              initialDelaySeconds: 1
              periodSeconds: 2
              timeoutSeconds: 2
              failureThreshold: 10
            }
            {
              // Checks only the process: a restart does not fix Redis.
              type: 'Liveness'
              httpGet: {
                path: '/healthz'
                port: 9090
              }
              periodSeconds: 10
              timeoutSeconds: 5
              failureThreshold: 3
            }
            {
              // The response already reflects 3 consecutive failures, so the threshold here is low.
              type: 'Readiness'
              httpGet: {
                path: '/readyz'
                port: 9090
              }
              periodSeconds: 5
              timeoutSeconds: 2
              failureThreshold: 2
              successThreshold: 1
            }
          ]
        }
      ]
      // The service needs at most 29 s: DRAIN_DELAY 5, DRAIN_TIMEOUT 20, and 4 for tasks, pool and telemetry.
      terminationGracePeriodSeconds: 35
      scale: {
        minReplicas: minReplicas
        maxReplicas: maxReplicas
        rules: [
          {
            name: 'http'
            http: {
              metadata: {
                // A number, but the API requires a string.
                concurrentRequests: string(concurrentRequests)
              }
            }
          }
        ]
      }
    }
  }
  // Resources that no property refers to, but without which the app would start and fail: the role for pulling the image,
  // the Redis user, and the private DNS name.
  dependsOn: [
    pullRole
    redisUser
    zoneLink
    zoneRecords
  ]
}

// Outputs ------------------------------------------------------------------------------------------------------------

@description('URL of the app.')
output url string = 'https://${app.properties.configuration.ingress.fqdn}'

@description('REDIS_ENDPOINT: host and port of the cache.')
output redisEndpoint string = '${redis.properties.hostName}:${database.properties.port}'

@description('Object id of the app\'s identity: the Redis user.')
output principalId string = identity.properties.principalId

@description('AZURE_CLIENT_ID: client id of the app\'s identity.')
output clientId string = identity.properties.clientId
