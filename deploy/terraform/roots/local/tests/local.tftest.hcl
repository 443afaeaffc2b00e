# Plans only: nothing is started. What an apply does is tested by test/e2e, with
# real processes.

variables {
  program   = "/usr/bin/true"
  directory = "/tmp/mqcluster-test"
}

run "three_nodes" {
  command = plan

  assert {
    condition     = output.endpoint == "127.0.0.1:8883"
    error_message = "The endpoint is ${output.endpoint}."
  }
  assert {
    condition     = join(" ", keys(output.nodes)) == "n1 n2 n3"
    error_message = "The nodes are ${join(" ", keys(output.nodes))}."
  }
  assert {
    condition     = length(distinct(flatten([for n in output.nodes : [n.client, n.mesh, n.health]]))) == 9
    error_message = "Two nodes have one address."
  }
  # The contract with rolling-replace.sh.
  assert {
    condition     = output.replace == "n1 module.cluster.terraform_data.node[\"n1\"]\nn2 module.cluster.terraform_data.node[\"n2\"]\nn3 module.cluster.terraform_data.node[\"n3\"]"
    error_message = "What is replaced with a node is ${output.replace}."
  }
}

run "five_nodes_leave_three_where_they_are" {
  command = plan
  variables { voters = 5 }

  assert {
    condition     = output.nodes.n3.client == "127.0.0.1:18836" && output.nodes.n5.health == "http://127.0.0.1:18844"
    error_message = "Ports depend on how many nodes there are."
  }
}

run "other_ports" {
  command = plan
  variables {
    port      = 443
    node_port = 30000
  }

  assert {
    condition     = output.endpoint == "127.0.0.1:443" && output.nodes.n1.client == "127.0.0.1:30000"
    error_message = "Ports are not those that were asked for."
  }
}

run "an_even_number_is_refused" {
  command = plan
  module { source = "../../modules/local" }
  variables { voters = 4 }
  expect_failures = [var.voters]
}

run "two_are_refused" {
  command = plan
  module { source = "../../modules/local" }
  variables { voters = 2 }
  expect_failures = [var.voters]
}

run "seven_are_refused" {
  command = plan
  module { source = "../../modules/local" }
  variables { voters = 7 }
  expect_failures = [var.voters]
}

run "a_long_directory_is_refused" {
  command = plan
  module { source = "../../modules/local" }
  variables { directory = "/tmp/${join("", [for i in range(90) : "x"])}" }
  expect_failures = [var.directory]
}

run "a_relative_program_is_refused" {
  command = plan
  module { source = "../../modules/local" }
  variables { program = "bin/mqcluster" }
  expect_failures = [var.program]
}

run "a_port_that_is_none_is_refused" {
  command = plan
  module { source = "../../modules/local" }
  variables { port = 70000 }
  expect_failures = [var.port]
}

run "a_port_of_a_node_is_refused" {
  command = plan
  module { source = "../../modules/local" }
  variables { port = 18844 }
  expect_failures = [var.port]
}

run "node_ports_that_do_not_fit_are_refused" {
  command = plan
  module { source = "../../modules/local" }
  variables { node_port = 65530 }
  expect_failures = [var.node_port]
}
