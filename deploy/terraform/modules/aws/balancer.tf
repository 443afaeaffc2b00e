# One port for clients. TLS ends at the nodes; their addresses come by PROXY v2, not
# by preserving them, so that what a node sees is always the balancer.

resource "aws_lb" "clients" {
  name                             = var.name
  load_balancer_type               = "network"
  internal                         = var.internal
  subnets                          = local.balancer_subnet_ids
  security_groups                  = [aws_security_group.balancer.id]
  enable_cross_zone_load_balancing = true
  tags                             = local.tags

  lifecycle {
    precondition {
      condition     = length(distinct(data.aws_subnet.node[*].availability_zone)) >= 3
      error_message = "The subnets are in fewer than three zones: one that fails would take the majority along."
    }
  }
}

resource "aws_lb_target_group" "nodes" {
  name                   = var.name
  vpc_id                 = var.vpc_id
  target_type            = "ip"
  protocol               = "TCP"
  port                   = local.client_port
  proxy_protocol_v2      = true
  preserve_client_ip     = "false"
  connection_termination = true
  deregistration_delay   = 30
  tags                   = local.tags

  # A node that drains refuses clients, and is asked as often as the balancer can.
  health_check {
    protocol            = "HTTP"
    port                = local.health_port
    path                = "/readyz"
    matcher             = "200"
    interval            = 5
    timeout             = 3
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }

  # A node that hangs keeps its connections: the balancer ends them.
  target_health_state {
    enable_unhealthy_connection_termination = true
  }
}

resource "aws_lb_target_group_attachment" "node" {
  for_each         = local.nodes
  target_group_arn = aws_lb_target_group.nodes.arn
  target_id        = aws_network_interface.node[each.key].private_ip
  port             = local.client_port
}

resource "aws_lb_listener" "clients" {
  load_balancer_arn        = aws_lb.clients.arn
  protocol                 = "TCP"
  port                     = local.client_port
  tcp_idle_timeout_seconds = var.idle_timeout
  tags                     = local.tags

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.nodes.arn
  }
}
