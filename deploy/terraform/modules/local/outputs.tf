output "endpoint" {
  description = "Where clients connect, with TLS."
  value       = "127.0.0.1:${var.port}"
}

output "nodes" {
  description = "Addresses of each node: clients (PROXY v2), mesh, health; and its data directory, which its verbs want."
  value = {
    for name, ports in local.nodes : name => {
      client    = "127.0.0.1:${ports.client}"
      mesh      = "127.0.0.1:${ports.mesh}"
      health    = "http://127.0.0.1:${ports.health}"
      directory = "${var.directory}/${name}"
    }
  }
}

output "ca_command" {
  description = "Prints the certificate of the cluster's authority, which clients have to trust."
  value       = "cat '${var.directory}/n1/tls/ca.crt'"
}

output "token_command" {
  description = "Prints a new token with which one more node can join."
  value       = "'${var.program}' token create --quiet --data-dir '${var.directory}/n1'"
}

output "gate_command" {
  description = "Succeeds when every node is ready and votes, so that one may be taken down."
  value       = "DIRECTORY='${var.directory}' NODES='${join(" ", keys(local.nodes))}' '${local.script}' gate"
}

output "balance_command" {
  description = "Spreads the clients evenly over the nodes again; of use after a node was down."
  value       = "'${var.program}' balance --timeout 5m --data-dir '${var.directory}/n1'"
}

output "node_resources" {
  description = "What is replaced to replace a node, by its name; addresses as this module sees them."
  value       = { for name in keys(local.nodes) : name => ["terraform_data.node[\"${name}\"]"] }
}
