# A cluster in a VPC of its own: terraform init && terraform apply. Regions,
# credentials and where the state lies are the operator's: AWS_REGION, AWS_PROFILE,
# a backend block in a file beside this one.

terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100.0, < 6.0.0"
    }
  }
}

provider "aws" {
  region = var.region
}

data "aws_availability_zones" "all" {
  state = "available"
  # Neither local zones nor those of telephone networks.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

# Debian 12, by the Debian project.
data "aws_ami" "debian" {
  count       = var.ami == null ? 1 : 0
  owners      = ["136693071363"]
  most_recent = true

  filter {
    name   = "name"
    values = ["debian-12-${var.architecture}-*"]
  }
}

locals {
  zones = slice(sort(data.aws_availability_zones.all.names), 0, 3)
  tags  = merge(var.tags, { mqcluster = var.name })
}

resource "aws_vpc" "this" {
  cidr_block           = var.vpc_cidr
  enable_dns_hostnames = true
  tags                 = merge(local.tags, { Name = var.name })
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id
  tags   = merge(local.tags, { Name = var.name })
}

resource "aws_subnet" "this" {
  count             = length(local.zones)
  vpc_id            = aws_vpc.this.id
  availability_zone = local.zones[count.index]
  cidr_block        = cidrsubnet(var.vpc_cidr, 4, count.index)
  tags              = merge(local.tags, { Name = "${var.name}-${local.zones[count.index]}" })

  lifecycle {
    # A region that gets another zone moves nothing.
    ignore_changes = [availability_zone]
  }
}

resource "aws_route_table" "this" {
  vpc_id = aws_vpc.this.id
  tags   = merge(local.tags, { Name = var.name })
}

resource "aws_route" "out" {
  route_table_id         = aws_route_table.this.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this.id
}

resource "aws_route_table_association" "this" {
  count          = length(aws_subnet.this)
  subnet_id      = aws_subnet.this[count.index].id
  route_table_id = aws_route.out.route_table_id
}

module "cluster" {
  source = "../../modules/aws"

  name   = var.name
  vpc_id = aws_vpc.this.id
  # By way of the routes: a machine that starts has a way out.
  subnet_ids       = aws_route_table_association.this[*].subnet_id
  public_addresses = true

  client_cidrs        = var.client_cidrs
  admin_cidrs         = var.admin_cidrs
  voters              = var.voters
  serving_nodes       = var.serving_nodes
  ami                 = var.ami == null ? data.aws_ami.debian[0].id : var.ami
  instance_type       = var.instance_type
  key_name            = var.key_name
  ssh_user            = var.ssh_user
  ssh_command         = var.ssh_command
  package_url         = var.package_url
  package_sha256      = var.package_sha256
  volume_size         = var.volume_size
  server_names        = var.server_names
  require_client_cert = var.require_client_cert
  max_keep_alive      = var.max_keep_alive
  idle_timeout        = var.idle_timeout
  settings            = var.settings
  backup_recipient    = var.backup_recipient
  backup_hours        = var.backup_hours
  backup_days         = var.backup_days
  destroy_backups     = var.destroy_backups
  alarm_actions       = var.alarm_actions
  tags                = var.tags
}
