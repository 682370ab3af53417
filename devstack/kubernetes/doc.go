// Package kubernetes holds the check of deploy/kubernetes.
//
// It exists because no cluster can be had where the tests run: what a cluster would refuse is found with the schemas of
// Kubernetes and of KEDA instead. kustomize renders the base and the example, kubeconform compares what comes out with the
// schemas, and the test itself looks whether what refers to something finds it. Whether it works in a cluster this does
// not tell. It is in this module because what it needs is nothing that the product needs; the two programs are built by
// the Makefile, and KUSTOMIZE and KUBECONFORM say where they are.
//
// The schemas are made from what two Go modules ship, which the go command downloads (20 MB and 3 MB, once):
//
//   - k8s.io/kubernetes: api/openapi-spec/swagger.json, the API as the server describes it
//   - github.com/kedacore/keda/v2: config/crd/bases, the definitions of KEDA's resources
package kubernetes
