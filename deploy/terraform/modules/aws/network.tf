# Who may reach what:
#
#   balancer 8883         client_cidrs
#   nodes    8883, 9883   the balancer
#   nodes    7883         each other
#   nodes    22, 9883     admin_cidrs

resource "aws_security_group" "balancer" {
  name        = "${var.name}-balancer"
  description = "The balancer of ${var.name}"
  vpc_id      = var.vpc_id
  tags        = merge(local.tags, { Name = "${var.name}-balancer" })
}

resource "aws_security_group" "node" {
  name        = "${var.name}-node"
  description = "The nodes of ${var.name}"
  vpc_id      = var.vpc_id
  tags        = merge(local.tags, { Name = "${var.name}-node" })
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each          = toset(var.client_cidrs)
  security_group_id = aws_security_group.balancer.id
  description       = "Clients"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = local.client_port
  to_port           = local.client_port
}

resource "aws_vpc_security_group_egress_rule" "balancer" {
  for_each                     = { clients = local.client_port, health = local.health_port }
  security_group_id            = aws_security_group.balancer.id
  description                  = "To the nodes: ${each.key}"
  referenced_security_group_id = aws_security_group.node.id
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
}

resource "aws_vpc_security_group_ingress_rule" "balancer" {
  for_each                     = { clients = local.client_port, health = local.health_port }
  security_group_id            = aws_security_group.node.id
  description                  = "From the balancer: ${each.key}"
  referenced_security_group_id = aws_security_group.balancer.id
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
}

resource "aws_vpc_security_group_ingress_rule" "mesh" {
  security_group_id            = aws_security_group.node.id
  description                  = "The mesh, among the nodes"
  referenced_security_group_id = aws_security_group.node.id
  ip_protocol                  = "tcp"
  from_port                    = local.mesh_port
  to_port                      = local.mesh_port
}

resource "aws_vpc_security_group_ingress_rule" "admin" {
  for_each = merge([for cidr in var.admin_cidrs : {
    "ssh ${cidr}"     = { cidr = cidr, port = 22 }
    "metrics ${cidr}" = { cidr = cidr, port = local.health_port }
  }]...)
  security_group_id = aws_security_group.node.id
  description       = "Operators"
  cidr_ipv4         = each.value.cidr
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
}

# To each other, to AWS, and to where the package is.
resource "aws_vpc_security_group_egress_rule" "node" {
  security_group_id = aws_security_group.node.id
  description       = "Anywhere"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}
