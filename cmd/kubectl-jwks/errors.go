// errors.go makes errors say what to do next.

package main

import (
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/tools/clientcmd"
)

// adviceError is an error with what to do about it.
type adviceError struct {
	problem string
	advice  string
}

func (e *adviceError) Error() string { return e.problem + "\n" + e.advice }

// advise makes an error with advice, a sentence or a few lines.
func advise(advice, format string, args ...any) error {
	return &adviceError{problem: fmt.Sprintf(format, args...), advice: advice}
}

// explained is an error as it is shown.
func explained(err error) string {
	var own *adviceError
	switch {
	case errors.As(err, &own):
		return err.Error()
	case meta.IsNoMatchError(err), discovery.IsGroupDiscoveryFailedError(err):
		return "this cluster does not know TrustedIssuers.\nInstall jwks-trust-manager (its CRDs first), or choose another cluster with --context."
	case apierrors.IsForbidden(err):
		return err.Error() + "\nAsk the cluster's administrator for that right; `kubectl jwks check` lists what each command needs."
	case apierrors.IsUnauthorized(err):
		return "the API server does not know you: " + err.Error() + "\nLog in again, or choose other credentials with --context or --user."
	case clientcmd.IsEmptyConfig(err):
		return "there is no kubeconfig to say which cluster to ask.\nSet KUBECONFIG, or give --kubeconfig."
	case unreachable(err):
		return "the API server cannot be reached: " + err.Error() + "\nIs the cluster up, and the right one? `kubectl config current-context` tells; --context chooses another."
	}
	return err.Error()
}

// unreachable reports an error that comes from no API server.
func unreachable(err error) bool {
	var status apierrors.APIStatus
	text := err.Error()
	return !errors.As(err, &status) && (strings.Contains(text, "connection refused") || strings.Contains(text, "no such host") || strings.Contains(text, "i/o timeout"))
}
