# Nodes and HAProxy as processes of this machine. Everything that is done is in
# local.sh; here is what there is, and what outlives what:
#
#   site       the directory; ends last, and ends what still runs
#   program    what nodes are started with
#   disk       what a node keeps; outlives its process
#   node       the process
#   members    takes out of the cluster whom it has lost for good
#   balancer   HAProxy

locals {
  # A slot for each node that there can be: the balancer's configuration does not
  # change when the cluster grows, so no connection ends for it.
  slots = {
    for i in range(5) : "n${i + 1}" => {
      client = var.node_port + 3 * i
      mesh   = var.node_port + 3 * i + 1
      health = var.node_port + 3 * i + 2
    }
  }
  nodes  = { for i in range(var.voters) : "n${i + 1}" => local.slots["n${i + 1}"] }
  script = abspath("${path.module}/local.sh")
}

# The destroy provisioner of a resource whose creation failed does not run. This
# one is complete before any process starts, and is destroyed when all others are:
# it ends the processes whose ids are still written down.
resource "terraform_data" "site" {
  input            = { SCRIPT = local.script, DIRECTORY = var.directory }
  triggers_replace = [var.directory, var.node_port]

  provisioner "local-exec" {
    command     = "exec \"$SCRIPT\" open"
    interpreter = ["bash", "-c"]
    environment = merge(self.input, { PROGRAM = var.program })
  }
  provisioner "local-exec" {
    when        = destroy
    command     = "exec \"$SCRIPT\" close"
    interpreter = ["bash", "-c"]
    environment = self.output
  }
}

# Beside the nodes, so that another program is no reason to replace them all.
resource "terraform_data" "program" {
  input            = { SCRIPT = local.script, DIRECTORY = var.directory, PROGRAM = var.program }
  triggers_replace = [var.program, terraform_data.site.id]

  provisioner "local-exec" {
    command     = "exec \"$SCRIPT\" program"
    interpreter = ["bash", "-c"]
    environment = self.input
  }
}

resource "terraform_data" "disk" {
  for_each         = local.nodes
  input            = { SCRIPT = local.script, DIRECTORY = var.directory, NODE = each.key }
  triggers_replace = [terraform_data.site.id]

  provisioner "local-exec" {
    when        = destroy
    command     = "exec \"$SCRIPT\" erase"
    interpreter = ["bash", "-c"]
    environment = self.output
  }
}

resource "terraform_data" "node" {
  for_each = local.nodes
  input = {
    SCRIPT = local.script, DIRECTORY = var.directory, NODE = each.key
    CLIENT = each.value.client, MESH = each.value.mesh, HEALTH = each.value.health
  }
  triggers_replace = [terraform_data.disk[each.key].id]
  depends_on       = [terraform_data.program]

  provisioner "local-exec" {
    command     = "exec \"$SCRIPT\" start"
    interpreter = ["bash", "-c"]
    environment = self.input
  }
  provisioner "local-exec" {
    when        = destroy
    command     = "exec \"$SCRIPT\" stop"
    interpreter = ["bash", "-c"]
    environment = self.output
  }
}

resource "terraform_data" "members" {
  input            = { SCRIPT = local.script, DIRECTORY = var.directory, NODES = join(" ", keys(local.nodes)) }
  triggers_replace = [keys(local.nodes), terraform_data.site.id]
  depends_on       = [terraform_data.node]

  provisioner "local-exec" {
    command     = "exec \"$SCRIPT\" settle"
    interpreter = ["bash", "-c"]
    environment = self.input
  }
}

resource "terraform_data" "balancer" {
  input = {
    SCRIPT = local.script, DIRECTORY = var.directory, PORT = var.port
    CONFIG = templatefile("${path.module}/haproxy.cfg.tftpl", { port = var.port, nodes = local.slots })
  }
  triggers_replace = [
    templatefile("${path.module}/haproxy.cfg.tftpl", { port = var.port, nodes = local.slots }),
    terraform_data.site.id,
  ]
  # Last, so that the endpoint works when apply returns.
  depends_on = [terraform_data.node]

  provisioner "local-exec" {
    command     = "exec \"$SCRIPT\" balance"
    interpreter = ["bash", "-c"]
    environment = self.input
  }
  provisioner "local-exec" {
    when        = destroy
    command     = "exec \"$SCRIPT\" unbalance"
    interpreter = ["bash", "-c"]
    environment = self.output
  }
}
