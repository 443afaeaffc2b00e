# What nodes tell each other before they are a cluster. Terraform makes these and
# takes them away; nodes write two of them.

locals {
  parameters = "/mqcluster/${var.name}"
}

# The token with which nodes join. "none" says that there is no cluster yet, and is
# what lets the first node make one. The token is in no state and no plan: what was
# written by value_wo is not read back, and is written again for another version only.
resource "aws_ssm_parameter" "token" {
  name             = "${local.parameters}/join-token"
  description      = "With it a node joins ${var.name}; its leader renews it"
  type             = "SecureString"
  key_id           = var.kms_key_arn
  value_wo         = "none"
  value_wo_version = 1
  tags             = local.tags
}

# The certificate that clients have to trust.
resource "aws_ssm_parameter" "ca" {
  name           = "${local.parameters}/ca"
  description    = "Certificate of the authority of ${var.name}"
  type           = "String"
  insecure_value = "none"
  tags           = local.tags

  lifecycle {
    ignore_changes = [insecure_value]
  }
}

# Who is to be a member. The leader takes others out once they are down.
resource "aws_ssm_parameter" "nodes" {
  name           = "${local.parameters}/nodes"
  description    = "The nodes of ${var.name} and their addresses"
  type           = "String"
  insecure_value = join(" ", [for name in local.names : "${name}=${aws_network_interface.node[name].private_ip}"])
  tags           = local.tags
}
