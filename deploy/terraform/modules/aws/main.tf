# Nodes in three zones behind one balancer. What there is, and where:
#
#   main.tf        nodes: their addresses, volumes and machines
#   network.tf     who may reach what
#   balancer.tf    port 8883
#   parameters.tf  what nodes tell each other before they are a cluster
#   access.tf      what a node may do in AWS
#   backup.tf      the bucket
#   alarms.tf      what is watched
#   node.sh        what is done on a machine; user-data.sh.tftpl puts it there
#
# An address and a volume outlive the machine that has them: a machine is replaced,
# a node is not.

data "aws_region" "current" {}
data "aws_partition" "current" {}

data "aws_subnet" "node" {
  count = length(var.subnet_ids)
  id    = var.subnet_ids[count.index]
}

data "aws_subnet" "balancer" {
  count = length(local.balancer_subnet_ids)
  id    = local.balancer_subnet_ids[count.index]
}

locals {
  balancer_subnet_ids = var.balancer_subnet_ids == null ? var.subnet_ids : var.balancer_subnet_ids

  client_port = 8883
  mesh_port   = 7883
  health_port = 9883

  # The first one makes the cluster. A node stays in its zone when others come.
  names = concat(
    slice(["a", "b", "c", "d", "e"], 0, var.voters),
    [for i in range(var.serving_nodes) : "s${i + 1}"],
  )
  nodes = { for i, name in local.names : name => i % length(var.subnet_ids) }
  tags  = merge(var.tags, { mqcluster = var.name })
}

resource "aws_placement_group" "nodes" {
  name     = var.name
  strategy = "spread"
  tags     = local.tags
}

resource "aws_network_interface" "node" {
  for_each        = local.nodes
  description     = "node ${each.key} of ${var.name}"
  subnet_id       = data.aws_subnet.node[each.value].id
  security_groups = [aws_security_group.node.id]
  tags            = merge(local.tags, { Name = "${var.name}-${each.key}" })

  lifecycle {
    # Another subnet is another address.
    ignore_changes = [subnet_id]
  }
}

resource "aws_eip" "node" {
  for_each          = var.public_addresses ? local.nodes : {}
  domain            = "vpc"
  network_interface = aws_network_interface.node[each.key].id
  tags              = merge(local.tags, { Name = "${var.name}-${each.key}" })
}

resource "aws_ebs_volume" "node" {
  for_each          = local.nodes
  availability_zone = data.aws_subnet.node[each.value].availability_zone
  type              = "gp3"
  size              = var.volume_size
  iops              = var.volume_iops
  throughput        = var.volume_throughput
  encrypted         = true
  kms_key_id        = var.kms_key_arn
  tags              = merge(local.tags, { Name = "${var.name}-${each.key}" })

  lifecycle {
    ignore_changes = [availability_zone]
  }
}

resource "aws_instance" "node" {
  for_each             = local.nodes
  ami                  = var.ami
  instance_type        = var.instance_type
  key_name             = var.key_name
  placement_group      = aws_placement_group.nodes.name
  iam_instance_profile = aws_iam_instance_profile.node.name
  user_data            = local.user_data[each.key]
  tags                 = merge(local.tags, { Name = "${var.name}-${each.key}" })

  network_interface {
    network_interface_id = aws_network_interface.node[each.key].id
    device_index         = 0
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    volume_type = "gp3"
    encrypted   = true
    kms_key_id  = var.kms_key_arn
  }

  lifecycle {
    # Each of these would replace or stop all machines at once. They count for a
    # machine that is replaced: rolling-replace.sh does so one by one.
    ignore_changes = [ami, instance_type, key_name, placement_group, user_data, root_block_device]

    precondition {
      condition     = length(local.user_data[each.key]) <= 16384
      error_message = "The user data has more than the 16384 bytes that a machine takes: write less into settings."
    }
  }

  # Without them a node cannot begin, and its end is to be seen.
  depends_on = [
    aws_iam_role_policy.node,
    aws_ssm_parameter.token,
    aws_ssm_parameter.ca,
    aws_vpc_security_group_ingress_rule.mesh,
    aws_vpc_security_group_egress_rule.node,
  ]
}

resource "aws_volume_attachment" "node" {
  for_each    = local.nodes
  instance_id = aws_instance.node[each.key].id
  volume_id   = aws_ebs_volume.node[each.key].id
  device_name = "/dev/sdf"

  # The node sends its clients away and ends before its volume goes.
  stop_instance_before_detaching = true
}

locals {
  # What the module sets of a node's mqcluster.yaml.
  owned = {
    for name in local.names : name => {
      node = { id = name }
      mesh = {
        listen    = "${aws_network_interface.node[name].private_ip}:${local.mesh_port}"
        advertise = "${aws_network_interface.node[name].private_ip}:${local.mesh_port}"
      }
      listeners = [{
        kind       = "tls"
        address    = "${aws_network_interface.node[name].private_ip}:${local.client_port}"
        proxy_from = distinct(data.aws_subnet.balancer[*].cidr_block)
        tls        = { require_client_cert = var.require_client_cert }
      }]
      health       = { listen = "${aws_network_interface.node[name].private_ip}:${local.health_port}" }
      cluster      = { name = var.name }
      server_names = distinct(concat([aws_lb.clients.dns_name], var.server_names))
      limits       = merge(try(var.settings.limits, {}), { max_keep_alive = "${var.max_keep_alive}s" })
    }
  }

  # Nothing of it is secret. It depends on the node alone, so that a cluster that
  # grows has the same for those that are there.
  user_data = {
    for name in local.names : name => templatefile("${path.module}/user-data.sh.tftpl", {
      backup_hours  = var.backup_hours
      configuration = yamlencode(merge(var.settings, local.owned[name]))
      script        = file("${path.module}/node.sh")
      values = {
        NODE             = name
        FIRST            = local.names[0]
        SERVING_ONLY     = contains(slice(local.names, 0, var.voters), name) ? "" : "yes"
        CLUSTER          = var.name
        ADDRESS          = aws_network_interface.node[name].private_ip
        MESH_PORT        = local.mesh_port
        VOLUME           = aws_ebs_volume.node[name].id
        REGION           = data.aws_region.current.name
        DOMAIN           = data.aws_partition.current.dns_suffix
        PARAMETERS       = local.parameters
        KMS_KEY          = var.kms_key_arn == null ? "" : var.kms_key_arn
        BUCKET           = aws_s3_bucket.backup.bucket
        BACKUP_RECIPIENT = var.backup_recipient
        PACKAGE_URL      = var.package_url == null ? "" : var.package_url
        PACKAGE_SHA256   = var.package_sha256 == null ? "" : var.package_sha256
      }
    })
  }
}
