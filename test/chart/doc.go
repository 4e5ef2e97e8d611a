// Package chart tests the Helm chart: that it makes what config/default makes, that
// an API server takes what it makes, and that nonsense in its values is refused.
package chart
