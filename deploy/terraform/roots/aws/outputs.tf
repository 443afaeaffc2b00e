output "endpoint" {
  description = "Where clients connect, with TLS."
  value       = module.cluster.endpoint
}

output "nodes" {
  description = "Addresses and machine of each node."
  value       = module.cluster.nodes
}

output "ca_command" {
  description = "Prints the certificate that clients have to trust."
  value       = module.cluster.ca_command
}

output "token_command" {
  description = "Prints the token with which one more node can join."
  value       = module.cluster.token_command
}

output "bucket" {
  description = "Where backups are."
  value       = module.cluster.bucket
}

output "replace_commands" {
  description = "Replaces a node's machine, by its name; without a name rolling-replace.sh replaces all, one after the other."
  value       = { for name in keys(module.cluster.nodes) : name => "'${abspath("${path.root}/../../rolling-replace.sh")}' '${abspath(path.root)}' ${name}" }
}

# What rolling-replace.sh reads; every root that it can work on has these three.

output "gate_command" {
  description = "Succeeds when a node may be taken down."
  value       = module.cluster.gate_command
}

output "balance_command" {
  description = "Spreads the clients evenly over the nodes again."
  value       = module.cluster.balance_command
}

output "replace" {
  description = "A line for each node: its name and the addresses of what is replaced with it."
  value       = join("\n", [for name, all in module.cluster.node_resources : join(" ", concat([name], [for a in all : "module.cluster.${a}"]))])
}
