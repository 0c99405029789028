// What entra-redis needs on AKS with Azure Managed Redis, from an empty resource group to `helm install`: a cluster with
// workload identity, an identity that the service account may be, and an Entra-only cache of which it is a user. No
// password, access key or connection string of Redis anywhere.
//
// All that must be there before is a container registry in the same resource group:
//
//   az deployment group create --resource-group "$RESOURCE_GROUP" --template-file deploy/aks/main.bicep \
//     --parameters registryName="$REGISTRY_NAME"
//
// Whoever deploys needs Owner, or Contributor and Role Based Access Control Administrator: two roles are assigned here.

@description('Region of everything.')
param location string = resourceGroup().location

@description('Name of the cluster; the other names begin with it.')
@minLength(2)
@maxLength(32)
param appName string = 'entra-redis'

@description('Name of the container registry, in this resource group, that the nodes fetch the image from.')
param registryName string

@description('Namespace of the Helm release: helm install --namespace.')
param namespace string = 'entra-redis'

@description('Service account of the pods: the name of the Helm release, unless serviceAccount.name says another.')
param serviceAccount string = 'entra-redis'

@description('Size of a node. A system pool wants two cores and 4 GB at least.')
param nodeSize string = 'Standard_D2s_v5'

@description('Nodes. With two, a node can be drained while the other one serves.')
@minValue(1)
param nodeCount int = 2

@description('Free has no SLA for the API server; Standard has one, and costs.')
@allowed(['Free', 'Standard'])
param clusterTier string = 'Free'

@description('Size of the cache. Balanced_B0 is the smallest.')
param redisSku string = 'Balanced_B0'

@description('Keep a replica of the cache\'s data. Without it the cache costs half, and has no SLA.')
param redisHighAvailability bool = true

@description('Reach the cache by a private endpoint alone. Can be changed later.')
param privateEndpoint bool = false

@description('Collect metrics with Azure Managed Prometheus; the chart then takes monitor.azureManagedPrometheus=true.')
param prometheus bool = true

var identityName = '${appName}-app'
var clusterIdentityName = '${appName}-cluster'
// The name is part of a host name, which must be free in the whole region.
var redisName = '${appName}-${uniqueString(resourceGroup().id)}'
// Azure's own roles AcrPull and Network Contributor: they have these ids in every tenant.
var acrPull = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '7f951dda-4ed3-4680-a7ca-43fe172d538d')
var networkContributor = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '4d97b98b-1d4f-4787-a291-c67834d212e7')

// Identities ---------------------------------------------------------------------------------------------------------

// Who the pods are. Its object id is the Redis user; its client id is workloadIdentity.clientId of the chart.
resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: identityName
  location: location
}

// Who the cluster is when it makes nodes and load balancers. Apart from the other one, so that no pod can be it.
resource clusterIdentity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: clusterIdentityName
  location: location
}

// Entra ID takes the token of this one service account of this one cluster for the identity. A fixed name, so that
// another namespace or service account takes the place of the former one.
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

// The nodes' own identity, which AKS makes, fetches the image.
resource pullRole 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(registry.id, cluster.id, acrPull)
  scope: registry
  properties: {
    roleDefinitionId: acrPull
    principalId: cluster.properties.identityProfile.kubeletidentity.objectId
    // Said outright, since a new identity may not yet be found in the directory, whose kind would be looked up there.
    principalType: 'ServicePrincipal'
  }
}

// Network ------------------------------------------------------------------------------------------------------------

// There with and without privateEndpoint: a cluster cannot be moved into another network.
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
          // Nodes alone: pods have addresses of their own, podCidr below.
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

// AKS puts nodes and load balancers into it. Nothing else is in this network.
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

// Without a version: AKS' default is newer than the oldest that the chart takes.
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
    // The issuer of the service accounts' tokens, which Entra ID asks for the keys.
    oidcIssuerProfile: {
      enabled: true
    }
    securityProfile: {
      // The webhook that gives a labelled pod its token and the variables of the identity.
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
      // Without an engine a NetworkPolicy is stored and not enforced, the chart's too.
      networkPolicy: 'cilium'
      networkDataplane: 'cilium'
      // These two and the network above must have no address in common.
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

// With privateEndpoint alone -----------------------------------------------------------------------------------------

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

// With this zone the name *.redis.azure.net leads to the private address. The pods go on using that name: it is in the
// certificate, the privatelink name is not.
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

// With prometheus alone ----------------------------------------------------------------------------------------------

// Where metrics are kept and rules are evaluated.
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

// The agent in the cluster learns from it where to send to. The name is the one that `az aks update
// --enable-azure-monitor-metrics` gives, which would make a second one beside another name.
resource collection 'Microsoft.Insights/dataCollectionRuleAssociations@2023-03-11' = if (prometheus) {
  name: 'ContainerInsightsMetricsExtension'
  scope: cluster
  properties: {
    dataCollectionRuleId: collectionRule.id
  }
}

// What one needs next ------------------------------------------------------------------------------------------------

@description('For az aks get-credentials, and the cluster of prometheus-rules.bicep.')
output clusterName string = cluster.name

@description('Before /entra-redis in image.repository of the chart.')
output registry string = registry.properties.loginServer

@description('redis.endpoint of the chart: host and port of the cache.')
output redisEndpoint string = '${redis.properties.hostName}:${database.properties.port}'

@description('workloadIdentity.clientId of the chart: client id of the pods\' identity.')
output clientId string = identity.properties.clientId

@description('Object id of the pods\' identity: the Redis user.')
output principalId string = identity.properties.principalId

@description('Azure Monitor workspace of prometheus-rules.bicep; empty without prometheus.')
output monitorWorkspaceId string = prometheus ? monitorWorkspace.id : ''
