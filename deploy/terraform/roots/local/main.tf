# A cluster on this machine: terraform init && terraform apply, or make up.

terraform {
  required_version = ">= 1.9"
}

locals {
  # make build writes it there.
  built   = abspath("${path.root}/../../../../bin/mqcluster")
  program = var.program == null ? local.built : var.program
}

module "cluster" {
  source = "../../modules/local"

  program   = local.program
  directory = var.directory == null ? abspath("${path.root}/cluster") : var.directory
  voters    = var.voters
  port      = var.port
  node_port = var.node_port
}
