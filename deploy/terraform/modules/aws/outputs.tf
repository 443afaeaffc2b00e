output "endpoint" {
  description = "Where clients connect, with TLS."
  value       = "${aws_lb.clients.dns_name}:${local.client_port}"
}

output "nodes" {
  description = "Addresses and machine of each node; public is null without public_addresses."
  value = {
    for name in local.names : name => {
      private  = aws_network_interface.node[name].private_ip
      public   = try(aws_eip.node[name].public_ip, null)
      zone     = aws_ebs_volume.node[name].availability_zone
      volume   = aws_ebs_volume.node[name].id
      instance = aws_instance.node[name].id
    }
  }
}

output "ca_command" {
  description = "Prints the certificate of the cluster's authority, which clients have to trust."
  value       = "aws ssm get-parameter --region ${data.aws_region.current.name} --name ${aws_ssm_parameter.ca.name} --query Parameter.Value --output text"
}

output "token_command" {
  description = "Prints the token with which one more node can join."
  value       = "aws ssm get-parameter --region ${data.aws_region.current.name} --name ${aws_ssm_parameter.token.name} --with-decryption --query Parameter.Value --output text"
}

output "bucket" {
  description = "Where backups are; restore them with the key of backup_recipient."
  value       = aws_s3_bucket.backup.bucket
}

output "balancer_zone_id" {
  description = "Hosted zone of the balancer, for an alias record of one of server_names."
  value       = aws_lb.clients.zone_id
}

locals {
  reach = join(" ", [for name in local.names : "${name}=${var.ssh_user}@${try(aws_eip.node[name].public_ip, aws_network_interface.node[name].private_ip)}"])
}

output "gate_command" {
  description = "Succeeds when every node is ready and as many vote as shall, so that one may be taken down."
  value       = "NODES='${local.reach}' VOTERS=${var.voters} REMOTE='${var.ssh_command}' '${abspath("${path.module}/operate.sh")}' gate"
}

output "balance_command" {
  description = "Spreads the clients evenly over the nodes again; of use after a node was down."
  value       = "NODES='${local.reach}' REMOTE='${var.ssh_command}' '${abspath("${path.module}/operate.sh")}' balance"
}

output "node_resources" {
  description = "What is replaced to replace a node's machine, by its name; addresses as this module sees them."
  value       = { for name in local.names : name => ["aws_instance.node[\"${name}\"]"] }
}

output "security_groups" {
  description = "Of the balancer and of the nodes."
  value       = { balancer = aws_security_group.balancer.id, node = aws_security_group.node.id }
}
