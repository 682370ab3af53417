// Package kubernetes holds the check of deploy/kubernetes.
//
// There is no cluster where the tests run. So the check uses the schemas of Kubernetes and of KEDA, and finds all that a
// cluster would refuse. kustomize renders the base and the example, kubeconform compares the result with the schemas, and
// the test itself checks that each reference has its target. It does not show that the manifests work in a cluster. It is in
// this module because the product needs none of this. The Makefile builds the two programs, and KUSTOMIZE and KUBECONFORM
// are their paths.
//
// The schemas come from two Go modules, which the go command downloads (20 MB and 3 MB, once):
//
//   - k8s.io/kubernetes: api/openapi-spec/swagger.json, the API as the server describes it
//   - github.com/kedacore/keda/v2: config/crd/bases, the definitions of KEDA's resources
package kubernetes
