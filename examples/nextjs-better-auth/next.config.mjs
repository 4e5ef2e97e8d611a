/** @type {import('next').NextConfig} */
export default {
  poweredByHeader: false,
  serverExternalPackages: ['better-auth'],
  turbopack: { root: import.meta.dirname },
}
