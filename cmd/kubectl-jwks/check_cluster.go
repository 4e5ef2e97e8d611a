// check_cluster.go checks what the API server can tell: the installation, and the
// caller's rights.

package main

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/jwks-trust/jwks-trust-manager/api/v1alpha1"
)

const (
	groupInstallation = "Installation"
	groupRights       = "Your rights"
	groupIssuers      = "Issuers, from this machine"
	groupVerifier     = "Verifier"
	groupAlgorithms   = "Algorithms"
)

// checkCRDs asks for each kind as any client would: a CRD that is there but not
// served is as good as none.
func (k *checker) checkCRDs() (installed bool, err error) {
	installed = true
	for _, of := range []struct {
		name string
		list client.ObjectList
		in   []client.ListOption
	}{
		{"trustedissuers." + api.GroupVersion.Group, &api.TrustedIssuerList{}, []client.ListOption{client.InNamespace("default"), client.Limit(1)}},
		{"clustertrustedissuers." + api.GroupVersion.Group, &api.ClusterTrustedIssuerList{}, []client.ListOption{client.Limit(1)}},
	} {
		err := k.client.List(k.ctx, of.list, of.in...)
		switch {
		case err == nil, apierrors.IsForbidden(err):
			k.add(groupInstallation, of.name, checkOK, "served as "+api.GroupVersion.Version, "")
		case meta.IsNoMatchError(err), discovery.IsGroupDiscoveryFailedError(err), apierrors.IsNotFound(err):
			installed = false
			k.add(groupInstallation, of.name, checkFailed, "the API server does not serve it", "Install jwks-trust-manager, its CRDs first: "+installDocument)
		default:
			return false, err // the API server does not answer: nothing can be checked
		}
	}
	return installed, nil
}

// checkDeployments looks for enough replicas.
func (k *checker) checkDeployments() {
	deployments, err := k.deployments(k.ctx)
	switch {
	case err != nil:
		k.add(groupInstallation, "Deployments", checkSkipped, err.Error(), "")
		return
	case len(deployments) == 0:
		k.add(groupInstallation, "Deployments", checkFailed, "none of jwks-trust-manager in the namespace "+k.operatorNamespace, "Name its namespace with --operator-namespace, or install it: "+installDocument)
		return
	}
	for i := range deployments {
		d := &deployments[i]
		detail := fmt.Sprintf("%d of %d available, %s", d.Status.AvailableReplicas, replicas(d), managerOf(d).Image)
		result, do := checkOK, ""
		switch {
		case d.Status.AvailableReplicas == 0:
			result, do = checkFailed, fmt.Sprintf("kubectl -n %s describe deployment %s; kubectl -n %s logs deployment/%s", d.Namespace, d.Name, d.Namespace, d.Name)
		case d.Status.AvailableReplicas < replicas(d):
			result = checkWarning
		}
		k.add(groupInstallation, "Deployment "+d.Name, result, detail, do)
	}
}

func replicas(d *appsv1.Deployment) int32 {
	if d.Spec.Replicas == nil {
		return 1
	}
	return *d.Spec.Replicas
}

// leaseName is the default of the manager's flag --leader-election-id.
const leaseName = "jwks-trust-manager"

// checkLeader looks for a controller that works.
func (k *checker) checkLeader() {
	names := []string{leaseName}
	if deployments, err := k.deployments(k.ctx); err == nil {
		var given []string
		for i := range deployments {
			given = append(given, argumentValues(&deployments[i], "leader-election-id")...)
		}
		if len(given) > 0 {
			names = given
		}
	}
	for _, name := range names {
		k.checkLease(name)
	}
}

func (k *checker) checkLease(name string) {
	var lease coordinationv1.Lease
	err := k.client.Get(k.ctx, client.ObjectKey{Namespace: k.operatorNamespace, Name: name}, &lease)
	const what = "Leader of the controllers"
	switch {
	case apierrors.IsNotFound(err):
		k.add(groupInstallation, what, checkWarning, "there is no lease "+name, "Fine for a controller without --leader-elect; otherwise none has started yet.")
	case err != nil:
		k.add(groupInstallation, what, checkSkipped, err.Error(), "")
	case lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "":
		k.add(groupInstallation, what, checkFailed, "nobody holds the lease "+name, "Is a controller running?")
	case lease.Spec.RenewTime == nil || k.now().Sub(lease.Spec.RenewTime.Time) > 2*leaseDuration(&lease):
		k.add(groupInstallation, what, checkFailed, *lease.Spec.HolderIdentity+" holds the lease "+name+", and no longer renews it", "Is a controller running?")
	default:
		k.add(groupInstallation, what, checkOK, *lease.Spec.HolderIdentity, "")
	}
}

func leaseDuration(l *coordinationv1.Lease) time.Duration {
	if l.Spec.LeaseDurationSeconds == nil {
		return 15 * time.Second
	}
	return time.Duration(*l.Spec.LeaseDurationSeconds) * time.Second
}

// right is something that a command needs.
type right struct {
	verb, group, resource, namespace string
	// optional: the command does without.
	optional bool
}

// checkRights asks the API server what the caller may do.
func (k *checker) checkRights() {
	ns, err := k.namespace()
	if err != nil {
		k.add(groupRights, "namespace", checkSkipped, err.Error(), "")
		return
	}
	group := api.GroupVersion.Group
	everywhere := ns
	if k.allNamespaces {
		everywhere = ""
	}
	list := right{verb: "list", group: group, resource: "trustedissuers", namespace: everywhere}
	listCluster := right{verb: "list", group: group, resource: "clustertrustedissuers", optional: true}
	read := right{verb: "get", group: group, resource: "trustedissuers", namespace: ns}
	readCluster := right{verb: "get", group: group, resource: "clustertrustedissuers", optional: true}
	change := right{verb: "patch", group: group, resource: "trustedissuers", namespace: ns}
	changeCluster := right{verb: "patch", group: group, resource: "clustertrustedissuers", optional: true}
	keys := right{verb: "get", resource: "configmaps", namespace: ns}
	authoritative := right{verb: "get", resource: "configmaps", namespace: k.operatorNamespace, optional: true}
	for _, command := range []struct {
		name  string
		needs []right
	}{
		{"status", []right{list, listCluster}},
		{"describe", []right{read, readCluster, {verb: "list", resource: "events", namespace: ns, optional: true}}},
		{"verify", []right{list, listCluster, read, readCluster, keys, authoritative}}, // without --by it looks for who judges
		{"export", []right{read, readCluster, keys, authoritative}},
		{"diff", []right{read, readCluster}},
		{"refresh, approve", []right{read, readCluster, change, changeCluster}},
		{"check, version", []right{
			{verb: "list", group: "apps", resource: "deployments", namespace: k.operatorNamespace, optional: true},
			{verb: "get", group: "coordination.k8s.io", resource: "leases", namespace: k.operatorNamespace, optional: true},
		}},
	} {
		k.checkCommand(command.name, command.needs)
	}
}

// checkCommand reports the rights that one command lacks.
func (k *checker) checkCommand(name string, needs []right) {
	result, lacks := checkOK, ""
	for _, r := range needs {
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: r.verb, Group: r.group, Resource: r.resource, Namespace: r.namespace},
		}}
		if err := k.client.Create(k.ctx, review); err != nil {
			k.add(groupRights, name, checkSkipped, err.Error(), "")
			return
		}
		if review.Status.Allowed {
			continue
		}
		if lacks != "" {
			lacks += "; "
		}
		lacks += r.String()
		result = checkWarning
	}
	if lacks != "" {
		k.add(groupRights, name, result, "you may not "+lacks, "")
		return
	}
	k.add(groupRights, name, result, "", "")
}

func (r right) String() string {
	text := r.verb + " " + r.resource
	if r.group != "" {
		text += "." + r.group
	}
	if r.namespace != corev1.NamespaceAll {
		text += " in " + r.namespace
	}
	if r.optional {
		text += " (the command does without)"
	}
	return text
}
