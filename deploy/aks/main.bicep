// Everything that entra-redis needs on AKS with Azure Managed Redis, from an empty resource group to `helm install`: a
// cluster with workload identity, an identity for the service account, and an Entra-only cache with that identity as its
// user. No password, access key or connection string of Redis anywhere.
//
// The only prerequisite is a container registry in the same resource group:
//
//   az deployment group create --resource-group "$RESOURCE_GROUP" --template-file deploy/aks/main.bicep \
//     --parameters registryName="$REGISTRY_NAME"
//
// The deployment requires Owner, or Contributor and Role Based Access Control Administrator: it assigns two roles.

@description('Region of all resources.')
param location string = resourceGroup().location

@description('Name of the cluster, and prefix of the other names.')
@minLength(2)
@maxLength(32)
param appName string = 'entra-redis'

@description('Name of the container registry, in this resource group, from which the nodes pull the image.')
param registryName string

@description('Namespace of the Helm release: helm install --namespace.')
param namespace string = 'entra-redis'

@description('Service account of the pods: the name of the Helm release, unless serviceAccount.name is set.')
param serviceAccount string = 'entra-redis'

@description('Size of a node. A system pool requires at least two cores and 4 GB.')
param nodeSize string = 'Standard_D2s_v5'

@description('Number of nodes. With two, one node can be drained while the other serves.')
@minValue(1)
param nodeCount int = 2

@description('Tier of the cluster. Free has no SLA for the API server; Standard has one, at a price.')
@allowed(['Free', 'Standard'])
param clusterTier string = 'Free'

@description('SKU of the cache. Balanced_B0 is the smallest.')
param redisSku string = 'Balanced_B0'

@description('Keep a replica of the cache\'s data. Without it the cache costs half as much and has no SLA.')
param redisHighAvailability bool = true

@description('Make the cache reachable only through a private endpoint. Can be changed later.')
param privateEndpoint bool = false

@description('Collect metrics with Azure Managed Prometheus; set monitor.azureManagedPrometheus=true in the chart.')
param prometheus bool = true

var identityName = '${appName}-app'
var clusterIdentityName = '${appName}-cluster'
// The name is part of a host name, which must be unique in the region.
var redisName = '${appName}-${uniqueString(resourceGroup().id)}'
// Azure's built-in roles AcrPull and Network Contributor, which have these ids in every tenant.
var acrPull = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '7f951dda-4ed3-4680-a7ca-43fe172d538d')
var networkContributor = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '4d97b98b-1d4f-4787-a291-c67834d212e7')

// Identities ---------------------------------------------------------------------------------------------------------

// The pods' identity. Its object id is the Redis user; its client id is workloadIdentity.clientId of the chart.
resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: identityName
  location: location
}

// The cluster's identity for creating nodes and load balancers. Separate, so that no pod can use it.
resource clusterIdentity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: clusterIdentityName
  location: location
}

// Entra ID accepts the token of exactly this service account of this cluster for the identity. A fixed name, so that
// another namespace or service account replaces the previous one.
resource trust 'Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials@2024-11-30' = {
  parent: identity
  name: 'aks'
  properties: {
    issuer: cluster.properties.oidcIssuerProfile.issuerURL
    subject: 'system:serviceaccount:${namespace}:${serviceAccount}'
    audiences: ['api://AzureADTokenExchange']
  }
}

resource registry 'Microsoft.ContainerRegistry/registries@2025-11-01' existing = {
  name: registryName
}

// The nodes' identity, which AKS creates, pulls the image.
resource pullRole 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(registry.id, cluster.id, acrPull)
  scope: registry
  properties: {
    roleDefinitionId: acrPull
    principalId: cluster.properties.identityProfile.kubeletidentity.objectId
    // Explicit, because the type would be looked up in the directory, where a new identity may not yet be found.
    principalType: 'ServicePrincipal'
  }
}

// Network ------------------------------------------------------------------------------------------------------------

// Created with and without privateEndpoint: a cluster cannot be moved into another network.
resource network 'Microsoft.Network/virtualNetworks@2025-05-01' = {
  name: '${appName}-network'
  location: location
  properties: {
    addressSpace: {
      addressPrefixes: ['10.224.0.0/16']
    }
    subnets: [
      {
        name: 'nodes'
        properties: {
          // For nodes only: pods have separate addresses, podCidr below.
          addressPrefix: '10.224.0.0/24'
        }
      }
      {
        name: 'endpoints'
        properties: {
          addressPrefix: '10.224.1.0/27'
        }
      }
    ]
  }
}

// AKS creates nodes and load balancers in it. Nothing else is in this network.
resource networkRole 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(network.id, clusterIdentity.id, networkContributor)
  scope: network
  properties: {
    roleDefinitionId: networkContributor
    principalId: clusterIdentity.properties.principalId
    principalType: 'ServicePrincipal'
  }
}

// Cluster ------------------------------------------------------------------------------------------------------------

// Without a version: AKS' default is newer than the oldest version that the chart supports.
resource cluster 'Microsoft.ContainerService/managedClusters@2026-06-01' = {
  name: appName
  location: location
  sku: {
    name: 'Base'
    tier: clusterTier
  }
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${clusterIdentity.id}': {}
    }
  }
  properties: {
    dnsPrefix: appName
    // The issuer of the service accounts' tokens; Entra ID fetches the keys from it.
    oidcIssuerProfile: {
      enabled: true
    }
    securityProfile: {
      // The webhook that adds the token and the identity's variables to a labelled pod.
      workloadIdentity: {
        enabled: true
      }
    }
    agentPoolProfiles: [
      {
        name: 'system'
        mode: 'System'
        type: 'VirtualMachineScaleSets'
        osType: 'Linux'
        count: nodeCount
        vmSize: nodeSize
        vnetSubnetID: '${network.id}/subnets/nodes'
      }
    ]
    networkProfile: {
      networkPlugin: 'azure'
      networkPluginMode: 'overlay'
      // Without an engine a NetworkPolicy, including the chart's, is stored but not enforced.
      networkPolicy: 'cilium'
      networkDataplane: 'cilium'
      // These two and the network above must not overlap.
      podCidr: '10.244.0.0/16'
      serviceCidr: '10.0.0.0/16'
      dnsServiceIP: '10.0.0.10'
    }
    autoUpgradeProfile: {
      upgradeChannel: 'patch'
      nodeOSUpgradeChannel: 'NodeImage'
    }
    azureMonitorProfile: {
      metrics: {
        enabled: prometheus
      }
    }
  }
  dependsOn: [networkRole]
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

// Only with privateEndpoint ------------------------------------------------------------------------------------------

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

// With this zone the name *.redis.azure.net resolves to the private address. The pods keep using that name: the certificate
// contains it, but not the privatelink name.
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

// Only with prometheus -----------------------------------------------------------------------------------------------

// The workspace that stores metrics and evaluates rules.
resource monitorWorkspace 'Microsoft.Monitor/accounts@2023-04-03' = if (prometheus) {
  name: '${appName}-metrics'
  location: location
}

resource collectionEndpoint 'Microsoft.Insights/dataCollectionEndpoints@2023-03-11' = if (prometheus) {
  name: '${appName}-metrics'
  location: location
  kind: 'Linux'
  properties: {}
}

resource collectionRule 'Microsoft.Insights/dataCollectionRules@2023-03-11' = if (prometheus) {
  name: '${appName}-metrics'
  location: location
  kind: 'Linux'
  properties: {
    dataCollectionEndpointId: collectionEndpoint.id
    dataSources: {
      prometheusForwarder: [
        {
          name: 'prometheus'
          streams: ['Microsoft-PrometheusMetrics']
        }
      ]
    }
    destinations: {
      monitoringAccounts: [
        {
          name: 'workspace'
          accountResourceId: monitorWorkspace.id
        }
      ]
    }
    dataFlows: [
      {
        streams: ['Microsoft-PrometheusMetrics']
        destinations: ['workspace']
      }
    ]
  }
}

// Configures the destination of the agent in the cluster. The name is the one that `az aks update
// --enable-azure-monitor-metrics` uses; with another name, that command would create a second one.
resource collection 'Microsoft.Insights/dataCollectionRuleAssociations@2023-03-11' = if (prometheus) {
  name: 'ContainerInsightsMetricsExtension'
  scope: cluster
  properties: {
    dataCollectionRuleId: collectionRule.id
  }
}

// Outputs ------------------------------------------------------------------------------------------------------------

@description('Name of the cluster, for az aks get-credentials and prometheus-rules.bicep.')
output clusterName string = cluster.name

@description('Registry host, the part before /entra-redis in image.repository of the chart.')
output registry string = registry.properties.loginServer

@description('redis.endpoint of the chart: host and port of the cache.')
output redisEndpoint string = '${redis.properties.hostName}:${database.properties.port}'

@description('workloadIdentity.clientId of the chart: client id of the pods\' identity.')
output clientId string = identity.properties.clientId

@description('Object id of the pods\' identity: the Redis user.')
output principalId string = identity.properties.principalId

@description('Azure Monitor workspace of prometheus-rules.bicep; empty without prometheus.')
output monitorWorkspaceId string = prometheus ? monitorWorkspace.id : ''
