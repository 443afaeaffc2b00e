variable "program" {
  description = "Path of mqcluster from the root on (default: what make build made). After a change: terraform apply, then rolling-replace.sh."
  type        = string
  default     = null
}

variable "directory" {
  description = "Directory for data and logs, from the root on; destroy removes it (default: cluster, in this directory)."
  type        = string
  default     = null
}

variable "voters" {
  description = "How many nodes: 1, 3 or 5."
  type        = number
  default     = 3
}

variable "port" {
  description = "Port of 127.0.0.1 that clients connect to."
  type        = number
  default     = 8883
}

variable "node_port" {
  description = "The first of the 15 ports of 127.0.0.1 that nodes listen at."
  type        = number
  default     = 18830
}
