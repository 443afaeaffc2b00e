variable "program" {
  description = "Path of mqcluster. A node uses what it says from its next start on: rolling-replace.sh starts them one by one."
  type        = string

  validation {
    condition     = startswith(var.program, "/")
    error_message = "Write the path of the program from the root on: processes outlive the directory that terraform runs in."
  }
}

variable "directory" {
  description = "Directory for data, logs and process ids. It is made, and removed by destroy; one that holds anything else is refused."
  type        = string

  # The path of a Unix socket in it is bounded by the kernel to 107 bytes.
  validation {
    condition     = startswith(var.directory, "/") && length(var.directory) <= 90
    error_message = "Write a path from the root on, of at most 90 characters."
  }
}

variable "voters" {
  description = "How many nodes there are; all of them vote."
  type        = number
  default     = 3

  validation {
    condition     = contains([1, 3, 5], var.voters)
    error_message = "Write 1, 3 or 5: an even number of voters bears no more failures than one less."
  }
}

variable "port" {
  description = "Port of 127.0.0.1 that clients connect to."
  type        = number
  default     = 8883

  validation {
    condition     = var.port >= 1 && var.port <= 65535 && floor(var.port) == var.port
    error_message = "Write a port, 1 to 65535."
  }
  validation {
    condition     = var.port < var.node_port || var.port >= var.node_port + 15
    error_message = "Write a port that no node listens at."
  }
}

variable "node_port" {
  description = "The first of the 15 ports of 127.0.0.1 that nodes listen at: three for each that there can be."
  type        = number
  default     = 18830

  validation {
    condition     = var.node_port >= 1024 && var.node_port <= 65520 && floor(var.node_port) == var.node_port
    error_message = "Write a port, 1024 to 65520."
  }
}
