// Package aws holds the test of deploy/terraform/roots/aws: terraform and Amazon's own
// provider make the cluster in test/fakeaws, where each machine is a systemd that runs
// the user data it was given. make check-aws runs it.
//
// It needs Linux, root, terraform, the provider in the folder that TF_PLUGIN_DIR names
// (as terraform init -plugin-dir takes it), the package that make deb makes, and what
// test/fakeaws needs.
package aws
