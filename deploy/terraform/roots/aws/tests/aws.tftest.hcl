# Plans only, with a provider that asks nobody. What an apply does is tested by
# test/aws, with Amazon's own provider and a fake of its cloud.

mock_provider "aws" {
  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-test-1c", "eu-test-1a", "eu-test-1b", "eu-test-1d"] }
  }
  mock_data "aws_region" {
    defaults = { name = "eu-test-1" }
  }
  mock_data "aws_partition" {
    defaults = { dns_suffix = "amazonaws.com" }
  }
}

variables {
  backup_recipient = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"
}

run "three_nodes_in_three_zones" {
  command = plan

  assert {
    condition     = join(" ", aws_subnet.this[*].availability_zone) == "eu-test-1a eu-test-1b eu-test-1c"
    error_message = "The zones are ${join(" ", aws_subnet.this[*].availability_zone)}."
  }
  assert {
    condition     = length(distinct(aws_subnet.this[*].cidr_block)) == 3
    error_message = "The subnets are ${join(" ", aws_subnet.this[*].cidr_block)}."
  }
  # The contract with rolling-replace.sh.
  assert {
    condition     = output.replace == "a module.cluster.aws_instance.node[\"a\"]\nb module.cluster.aws_instance.node[\"b\"]\nc module.cluster.aws_instance.node[\"c\"]"
    error_message = "What is replaced with a node is ${output.replace}."
  }
}

run "nodes_of_the_module" {
  command = plan
  module { source = "../../modules/aws" }
  variables {
    vpc_id        = "vpc-1"
    subnet_ids    = ["subnet-1", "subnet-2", "subnet-3"]
    ami           = "ami-1"
    voters        = 5
    serving_nodes = 2
  }

  assert {
    condition     = join(" ", keys(aws_instance.node)) == "a b c d e s1 s2"
    error_message = "The nodes are ${join(" ", keys(aws_instance.node))}."
  }
  assert {
    condition     = alltrue([for n in aws_instance.node : n.metadata_options[0].http_tokens == "required" && n.metadata_options[0].http_put_response_hop_limit == 1])
    error_message = "A machine gives its metadata to whoever asks."
  }
  assert {
    condition     = alltrue([for v in aws_ebs_volume.node : v.encrypted && v.type == "gp3"]) && length(aws_ebs_volume.node) == 7
    error_message = "A volume is not encrypted, not gp3, or not there."
  }
  assert {
    condition     = aws_placement_group.nodes.strategy == "spread"
    error_message = "The machines may be on one host."
  }
  assert {
    condition     = length({ for name, n in aws_network_interface.node : n.subnet_id => name... }) == 3
    error_message = "The nodes are not in three subnets."
  }
  assert {
    condition     = aws_lb_listener.clients.tcp_idle_timeout_seconds > 1.5 * var.max_keep_alive
    error_message = "The balancer ends connections that nothing is wrong with."
  }
  # Nobody but the balancer and the nodes, unless admin_cidrs says so.
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.admin) == 0
    error_message = "Somebody may reach the nodes."
  }
  assert {
    condition     = join(" ", keys(aws_vpc_security_group_ingress_rule.clients)) == "0.0.0.0/0"
    error_message = "The balancer is not for everybody."
  }
}

run "operators_are_a_list" {
  command = plan
  module { source = "../../modules/aws" }
  variables {
    vpc_id      = "vpc-1"
    subnet_ids  = ["subnet-1", "subnet-2", "subnet-3"]
    ami         = "ami-1"
    admin_cidrs = ["192.0.2.0/24", "198.51.100.7/32"]
  }

  assert {
    condition     = join(" ", sort([for r in aws_vpc_security_group_ingress_rule.admin : "${r.cidr_ipv4}:${r.from_port}-${r.to_port}"])) == "192.0.2.0/24:22-22 192.0.2.0/24:9883-9883 198.51.100.7/32:22-22 198.51.100.7/32:9883-9883"
    error_message = "Operators reach something else."
  }
}

run "one_zone_is_refused" {
  command = plan
  module { source = "../../modules/aws" }
  variables {
    vpc_id     = "vpc-1"
    subnet_ids = ["subnet-1", "subnet-2", "subnet-3"]
    ami        = "ami-1"
  }
  override_data {
    target = data.aws_subnet.node
    values = { availability_zone = "eu-test-1a" }
  }
  expect_failures = [aws_lb.clients]
}

run "four_voters_is_refused" {
  command = plan
  module { source = "../../modules/aws" }
  variables {
    vpc_id     = "vpc-1"
    subnet_ids = ["subnet-1", "subnet-2", "subnet-3"]
    ami        = "ami-1"
    voters     = 4
  }
  expect_failures = [var.voters]
}

run "two_voters_is_refused" {
  command = plan
  module { source = "../../modules/aws" }
  variables {
    vpc_id     = "vpc-1"
    subnet_ids = ["subnet-1", "subnet-2", "subnet-3"]
    ami        = "ami-1"
    voters     = 2
  }
  expect_failures = [var.voters]
}

run "one_voter_is_refused" {
  command = plan
  module { source = "../../modules/aws" }
  variables {
    vpc_id     = "vpc-1"
    subnet_ids = ["subnet-1", "subnet-2", "subnet-3"]
    ami        = "ami-1"
    voters     = 1
  }
  expect_failures = [var.voters]
}

run "two_subnets_is_refused" {
  command = plan
  module { source = "../../modules/aws" }
  variables {
    vpc_id     = "vpc-1"
    ami        = "ami-1"
    subnet_ids = ["subnet-1", "subnet-2"]
  }
  expect_failures = [var.subnet_ids]
}

run "a_short_idle_timeout_is_refused" {
  command = plan
  module { source = "../../modules/aws" }
  variables {
    vpc_id       = "vpc-1"
    subnet_ids   = ["subnet-1", "subnet-2", "subnet-3"]
    ami          = "ami-1"
    idle_timeout = 2700
  }
  expect_failures = [var.idle_timeout]
}

run "a_long_idle_timeout_is_refused" {
  command = plan
  module { source = "../../modules/aws" }
  variables {
    vpc_id       = "vpc-1"
    subnet_ids   = ["subnet-1", "subnet-2", "subnet-3"]
    ami          = "ami-1"
    idle_timeout = 7000
  }
  expect_failures = [var.idle_timeout]
}

run "operators_of_the_world_is_refused" {
  command = plan
  module { source = "../../modules/aws" }
  variables {
    vpc_id      = "vpc-1"
    subnet_ids  = ["subnet-1", "subnet-2", "subnet-3"]
    ami         = "ami-1"
    admin_cidrs = ["0.0.0.0/0"]
  }
  expect_failures = [var.admin_cidrs]
}

run "a_package_without_a_sum_is_refused" {
  command = plan
  module { source = "../../modules/aws" }
  variables {
    vpc_id      = "vpc-1"
    subnet_ids  = ["subnet-1", "subnet-2", "subnet-3"]
    ami         = "ami-1"
    package_url = "https://example.org/mqcluster.deb"
  }
  expect_failures = [var.package_sha256]
}

run "a_recipient_that_is_none_is_refused" {
  command = plan
  module { source = "../../modules/aws" }
  variables {
    vpc_id           = "vpc-1"
    subnet_ids       = ["subnet-1", "subnet-2", "subnet-3"]
    ami              = "ami-1"
    backup_recipient = "AGE-SECRET-KEY-1"
  }
  expect_failures = [var.backup_recipient]
}

run "a_name_that_is_too_long_is_refused" {
  command = plan
  module { source = "../../modules/aws" }
  variables {
    vpc_id     = "vpc-1"
    subnet_ids = ["subnet-1", "subnet-2", "subnet-3"]
    ami        = "ami-1"
    name       = "a-name-of-a-cluster-of-mine"
  }
  expect_failures = [var.name]
}
