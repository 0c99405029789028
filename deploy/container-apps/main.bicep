// entra-redis on Azure Container Apps with Azure Managed Redis, from an empty resource group to GET /sample:
// identities, network, cache and app, without a password, an access key or a connection string of Redis anywhere.
//
// All that must be there before is a container registry in the same resource group, with the image in it:
//
//   az deployment group create --resource-group "$RESOURCE_GROUP" --template-file deploy/container-apps/main.bicep \
//     --parameters registryName="$REGISTRY_NAME" image="$IMAGE"
//
// Whoever deploys needs Owner, or Contributor and Role Based Access Control Administrator: one role is assigned here.

@description('Region of everything.')
param location string = resourceGroup().location

@description('Name of the container app; the other names begin with it.')
@minLength(2)
@maxLength(32)
param appName string = 'entra-redis'

@description('Name of the container registry, in this resource group, that has the image.')
param registryName string

@description('Repository and tag of the image in that registry: entra-redis:TAG. A new tag makes a new revision, the same one does not.')
param image string

@description('Size of the cache. Balanced_B0 is the smallest.')
param redisSku string = 'Balanced_B0'

@description('Keep a replica of the cache\'s data. Without it the cache costs half, and has no SLA.')
param redisHighAvailability bool = true

@description('Reach the cache by a private endpoint alone, and put the app into a network of its own. Choose at once: an environment cannot be moved into a network later.')
param privateEndpoint bool = false

@description('Single: a new revision replaces the old one as soon as it is ready. Multiple: old ones stay until they are deactivated.')
@allowed(['Single', 'Multiple'])
param activeRevisionsMode string = 'Single'

@description('Fewest replicas. With 0 the first request after a pause waits for a start, a token and a connection.')
@minValue(0)
param minReplicas int = 1

@description('Most replicas.')
@minValue(1)
param maxReplicas int = 5

@description('Requests in progress per replica above which another replica is started.')
@minValue(1)
param concurrentRequests int = 100

@description('OTLP collector (gRPC) that gets metrics and traces too, with its port, such as https://collector.example.com:4317. Empty: Application Insights gets the traces, nobody the metrics.')
param otlpEndpoint string = ''

@description('Headers sent to that collector, such as {"api-key": "..."}.')
@secure()
param otlpHeaders object = {}

var environmentName = '${appName}-environment'
var identityName = '${appName}-app'
var pullIdentityName = '${appName}-pull'
// The name is part of a host name, which must be free in the whole region.
var redisName = '${appName}-${uniqueString(resourceGroup().id)}'
// Azure's own role AcrPull: it has this id in every tenant.
var acrPull = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '7f951dda-4ed3-4680-a7ca-43fe172d538d')

// Identities ---------------------------------------------------------------------------------------------------------

// Who the app is. Its object id is the Redis user; its client id is AZURE_CLIENT_ID.
resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: identityName
  location: location
}

// Who fetches the image. Apart from the other one, so that the app itself cannot reach the registry.
resource pullIdentity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: pullIdentityName
  location: location
}

resource registry 'Microsoft.ContainerRegistry/registries@2025-11-01' existing = {
  name: registryName
}

// A role takes minutes to be known everywhere. The cache takes longer to be made, and the app waits for both.
resource pullRole 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(registry.id, pullIdentity.id, acrPull)
  scope: registry
  properties: {
    roleDefinitionId: acrPull
    principalId: pullIdentity.properties.principalId
    // Said outright, since a new identity may not yet be found in the directory, whose kind would be looked up there.
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
    // The highest that can be asked for. The service speaks 1.3 alone.
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
    // Entra ID alone. There is no key to leak.
    accessKeysAuthentication: 'Disabled'
  }
}

// The identity as a Redis user. A name here may have letters and digits alone.
resource redisUser 'Microsoft.Cache/redisEnterprise/databases/accessPolicyAssignments@2025-07-01' = {
  parent: database
  name: 'app'
  properties: {
    accessPolicyName: 'default'
    user: {
      // The object id: with the client id Redis would say WRONGPASS.
      objectId: identity.properties.principalId
    }
  }
}

// Network, with privateEndpoint alone --------------------------------------------------------------------------------

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
          // At least /27; a revision that replaces another needs addresses for both.
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
  // After it and not beside it: a cache that is being changed may refuse another change.
  dependsOn: [redisUser]
}

// With this zone the name *.redis.azure.net leads to the private address. The app goes on using that name: it is in
// the certificate, the privatelink name is not.
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

// Environment and what it reports to ---------------------------------------------------------------------------------

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
    // The managed agent knows no other way to sign in.
    DisableLocalAuth: false
  }
}

// 2026-07-01 is the first version out of preview that has openTelemetryConfiguration. A Bicep that is older warns that
// it does not know it, and deploys all the same.
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
    // Application Insights takes no metrics from the agent.
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
      // Main: the container can ask for tokens. None: it cannot, and the platform still fetches images.
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
          // the platform. They must not stand here: what stands here wins.
          env: [
            {
              // Apart from targetPort, so that probes, metrics and the page with the identity are not on the internet.
              name: 'ADMIN_PORT'
              value: '9090'
            }
            {
              name: 'REDIS_ENDPOINT'
              value: '${redis.properties.hostName}:${database.properties.port}'
            }
            {
              // Without it the platform would have to guess which identity is meant, and refuses to.
              name: 'AZURE_CLIENT_ID'
              value: identity.properties.clientId
            }
            {
              // Named, so that nothing else is tried, whatever else stands in the environment.
              name: 'AZURE_TOKEN_CREDENTIALS'
              value: 'ManagedIdentityCredential'
            }
            {
              name: 'OTEL_SERVICE_NAME'
              value: appName
            }
            {
              // Standard output already goes to Log Analytics, with trace_id in each line. By OTLP the same lines would
              // be stored and paid for a second time. otlp shows them beside their traces in Application Insights.
              name: 'OTEL_LOGS_EXPORTER'
              value: 'none'
            }
            {
              // Nothing scrapes /metrics here, so they are sent where there is a collector that takes them.
              name: 'OTEL_METRICS_EXPORTER'
              value: empty(otlpEndpoint) ? 'none' : 'otlp'
            }
          ]
          // Ports are numbers and failureThreshold is at most 10: Container Apps takes neither names nor more.
          probes: [
            {
              // The process listens at once; 20 s are for a slow node.
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
              // Looks at the process alone: a restart does not mend Redis.
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
              // The answer already stands for 3 failures in a row, so few are asked for here.
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
      // The service takes 29 s at most: DRAIN_DELAY 5, DRAIN_TIMEOUT 20, and 4 for tasks, pool and telemetry.
      terminationGracePeriodSeconds: 35
      scale: {
        minReplicas: minReplicas
        maxReplicas: maxReplicas
        rules: [
          {
            name: 'http'
            http: {
              metadata: {
                // A string, though it is a number.
                concurrentRequests: string(concurrentRequests)
              }
            }
          }
        ]
      }
    }
  }
  // What no property refers to, and without which the app would start and fail: the role to fetch the image, the Redis
  // user, and the private name.
  dependsOn: [
    pullRole
    redisUser
    zoneLink
    zoneRecords
  ]
}

// What one needs next ------------------------------------------------------------------------------------------------

@description('Where the app answers.')
output url string = 'https://${app.properties.configuration.ingress.fqdn}'

@description('REDIS_ENDPOINT: host and port of the cache.')
output redisEndpoint string = '${redis.properties.hostName}:${database.properties.port}'

@description('Object id of the app\'s identity: the Redis user.')
output principalId string = identity.properties.principalId

@description('AZURE_CLIENT_ID: client id of the app\'s identity.')
output clientId string = identity.properties.clientId
